"""Progress of a run: its stages in order, their results, and the time left."""

import json
import threading
import time
from contextlib import suppress

from knife.core.errors import UserError
from knife.core.words import size
from knife.plan.plan import Plan
from knife.plan.stage import EvaluateStage, Stage, StatesStage, StudentStage, TeacherStage
from knife.plan.steps import total_steps
from knife.store.store import Store
from knife.train.journal import Row
from knife.train.results import read_trained

# A store that fails for a moment, or a removed artifact, must not stop the progress display.
_UNREADABLE = (OSError, UserError, ValueError, LookupError)


class Progress:
    """The state of the stages that a start makes.

    `look` updates it; everything else only reads. A unit is what a stage counts: optimizer steps
    in a training, examples in the other kinds.

    Attributes:
        stages: the stages to make, in order.
        number: how many of them are done; the stage under way is the next one.
        row: the newest row of the stage under way; None while it has none.
        lock: held by `look`; readers in other threads hold it too.
    """

    def __init__(self, stages: list[Stage], plan: Plan) -> None:
        self.stages = stages
        self.number = 0
        self.row: Row | None = None
        self.lock = threading.RLock()
        self._store = Store(plan.config.store, write=False)
        self._ask_at = 0.0
        self._workers = plan.config.scale.workers
        self._totals = [total_units(stage, plan) for stage in stages]
        self._first: Row | None = None
        self._since = time.monotonic()
        # Seconds and units of the finished stages, by kind.
        self._spent: dict[str, tuple[float, float]] = {}

    @property
    def stage(self) -> Stage | None:
        """The stage under way; None when all are done."""
        return self.stages[self.number] if self.number < len(self.stages) else None

    @property
    def total(self) -> int:
        """Units of the stage under way; 0 when all are done."""
        return self._totals[self.number] if self.number < len(self.stages) else 0

    @property
    def units(self) -> int:
        """Units done of the stage under way."""
        if self.row is None:
            return 0
        if _trains(self.stage):
            return min(self.row["step"], self.total)
        # One worker writes the journal; the others are about as far.
        return min(int(self.row["metrics"].get("examples", 0)) * self._workers, self.total)

    def look(self, newest: dict[tuple[str, str], Row], *, last: bool = False) -> list[Stage]:
        """Update from the newest rows by stage; return the stages finished since the last look."""
        with self.lock:
            if last:
                self._ask_at = 0.0
            done = []
            while (stage := self.stage) and self._is_done(stage):
                seconds, units = self._spent.get(stage.kind, (0.0, 0.0))
                self._spent[stage.kind] = (seconds + self._seconds(stage), units + self.total)
                self.number += 1
                self.row = self._first = None
                self._since = time.monotonic()
                done.append(stage)
            if stage:
                self.row = newest.get((stage.kind, stage.key))
                again = self.row and self._first and self.row["step"] < self._first["step"]
                if self._first is None or again:
                    self._first = self.row
            return done

    def seconds_left(self) -> tuple[float | None, float | None]:
        """Estimate the time left for the stage under way and for the run; None where unknown."""
        pace = self._pace()
        of_stage = None if pace is None else (self.total - self.units) * pace
        of_run = of_stage
        for stage, total in list(zip(self.stages, self._totals, strict=True))[self.number + 1 :]:
            later = self._mean_pace(stage.kind)
            if later is None:
                # Before the first student is done: about as fast as the training under way.
                # States and evaluations are short compared to a training.
                later = (pace if _trains(self.stage) else None) if _trains(stage) else 0.0
            of_run = None if of_run is None or later is None else of_run + total * later
        return of_stage, of_run

    def _is_done(self, stage: Stage) -> bool:
        if time.monotonic() < self._ask_at:
            return False
        done = False
        # The process that makes the stage reports errors of the store.
        with suppress(*_UNREADABLE):
            done = self._store.has(stage.kind, stage.key)
        if not done:
            # Each check of a bucket is a request.
            self._ask_at = time.monotonic() + self._store.seconds
        return done

    def _seconds(self, stage: Stage) -> float:
        """Return how long a finished stage took."""
        with suppress(*_UNREADABLE):
            if _trains(stage):
                return float(read_trained(self._store, stage.kind, stage.key)["seconds"])
        return time.monotonic() - self._since

    def _pace(self) -> float | None:
        """Return seconds per unit of the stage under way, or of its kind if it has only begun."""
        if self.stage is None:
            return 0.0
        if self.row and self._first and _trains(self.stage):
            steps = self.row["step"] - self._first["step"]
            seconds = self.row["time"] - self._first["time"]
            if steps and seconds > 1:
                return seconds / steps
        return self._mean_pace(self.stage.kind)

    def _mean_pace(self, kind: str) -> float | None:
        seconds, units = self._spent.get(kind, (0.0, 0.0))
        return seconds / units if units else None


def _trains(stage: Stage | None) -> bool:
    return isinstance(stage, TeacherStage | StudentStage)


def total_units(stage: Stage, plan: Plan) -> int:
    """Return the optimizer steps of a training, or the number of examples of another stage."""
    splits = plan.data[stage.data]
    if isinstance(stage, TeacherStage | StudentStage):
        return total_steps(stage, splits)
    return len(splits.train if isinstance(stage, StatesStage) else splits.test)


def result(stages: list[Stage], store: Store) -> str:
    """Return the result of finished stages, which were made at once, in a few words."""
    try:
        return _result(stages, store)
    except _UNREADABLE:
        return "its result cannot be read at the moment"


def _result(stages: list[Stage], store: Store) -> str:
    stage = stages[0]
    if _trains(stage):
        trained = read_trained(store, stage.kind, stage.key)
        accuracy = f"dev {100 * trained['dev_accuracy']:.1f} %"
        return f"{accuracy} (step {trained['best_step']} of {trained['steps']})"
    if isinstance(stage, EvaluateStage):
        lines = store.read(stage.kind, stage.key, "journal.jsonl").splitlines()
        row = json.loads(lines[-1])
        return f"{stage.asked} {100 * row['metrics']['test_accuracy']:.1f} %"
    tables = [store.manifest(each.kind, each.key) for each in stages]
    files = [item for about in tables if about for item in about["files"].items()]
    return size(sum(of["bytes"] for name, of in files if name.endswith(".safetensors")))
