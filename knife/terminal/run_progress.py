"""Progress of a run: the stages under way, what they have done, and the time left."""

from knife.plan.events import Event, Failed, Made, Started
from knife.plan.pace import Pace
from knife.plan.plan import Plan
from knife.plan.schedule import Work
from knife.plan.stage import Stage, StudentStage, TeacherStage
from knife.terminal.progress import total_units
from knife.train.journal import Row


class WorkProgress:
    """How far stages are that are made at once, in units: optimizer steps of a training, or
    examples.

    Attributes:
        work: the stages.
        total: number of units.
        row: the newest row of the first stage's journal; None while there is none.
    """

    def __init__(self, work: Work, plan: Plan) -> None:
        self.work = work
        self.row: Row | None = None
        self.total = total_units(self.stage, plan)
        self._workers = plan.config.scale.workers
        self._first: Row | None = None

    @property
    def stage(self) -> Stage:
        """The first of the stages."""
        return self.work.stages[0]

    @property
    def units(self) -> int:
        """Units done."""
        if self.row is None:
            return 0
        if isinstance(self.stage, TeacherStage | StudentStage):
            return min(self.row["step"], self.total)
        # One worker writes the journal; the others are about as far.
        return min(int(self.row["metrics"].get("examples", 0)) * self._workers, self.total)

    def look(self, row: Row | None) -> None:
        """Take the newest row."""
        self.row = row
        if self._first is None or (row and row["step"] < self._first["step"]):
            self._first = row

    def seconds_left(self, pace: Pace) -> float | None:
        """Estimate the time left, from the rows so far or else from other stages; None if
        unknown."""
        if self.row and self._first and isinstance(self.stage, TeacherStage | StudentStage):
            steps = self.row["step"] - self._first["step"]
            seconds = self.row["time"] - self._first["time"]
            if steps and seconds > 1:
                return (self.total - self.units) * seconds / steps
        if pace.rate(self.stage) is None:
            return None
        share = self.units / self.total if self.total else 0.0
        return (1 - share) * pace.seconds(self.stage)


class RunProgress:
    """The progress of the stages that a start makes.

    Attributes:
        total: how many stages there are.
        done: how many of them are made or have failed.
        under_way: those under way, by slot.
    """

    def __init__(self, stages: list[Stage], plan: Plan, pace: Pace) -> None:
        self.total = len(stages)
        self.done = 0
        self.under_way: dict[int, WorkProgress] = {}
        self._plan, self._pace = plan, pace
        self._waiting = {(stage.kind, stage.key): stage for stage in stages}
        self._slots = 1

    def hear(self, event: Event) -> None:
        """Take an event."""
        match event:
            case Started(work, slot):
                self.under_way[slot] = WorkProgress(work, self._plan)
                self._slots = max(self._slots, len(self.under_way))
            case Made(work) | Failed(work):
                self.under_way = {n: p for n, p in self.under_way.items() if p.work is not work}
                self.done += len(work.stages)
            case _:
                return
        for artifact in event.work.artifacts:
            self._waiting.pop(artifact, None)

    def look(self, newest: dict[tuple[str, str], Row]) -> None:
        """Update from the newest rows by stage."""
        for progress in self.under_way.values():
            progress.look(newest.get((progress.stage.kind, progress.stage.key)))

    def seconds_left(self) -> float | None:
        """Estimate the time left for all stages; None while nothing is known."""
        lefts = [progress.seconds_left(self._pace) for progress in self.under_way.values()]
        known = [left for left in lefts if left is not None]
        if len(known) < len(lefts):
            return None
        waiting = list(self._waiting.values())
        rates = [self._rate(stage) for stage in waiting]
        found = [
            rate * self._pace.passes(stage)
            for stage, rate in zip(waiting, rates, strict=True)
            if rate is not None
        ]
        if len(found) < len(waiting):
            return None
        return max([*known, (sum(known) + sum(found)) / self._slots], default=0.0)

    def _rate(self, stage: Stage) -> float | None:
        """Return a stage's seconds for a forward pass: measured, or as what is under way."""
        if (rate := self._pace.rate(stage)) is not None:
            return rate
        for progress in self.under_way.values():
            left, share = progress.seconds_left(self._pace), progress.units / max(progress.total, 1)
            if left is not None and share < 1:
                return left / ((1 - share) * self._pace.passes(progress.stage))
        return None
