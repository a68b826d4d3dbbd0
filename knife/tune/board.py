"""A sweep's progress on stderr and in MLflow: every trial's start, scores and end."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from knife.display import clock
from knife.errors import UserError
from knife.plan import Plan, plan_run
from knife.plan_sources import SourceReader
from knife.tune.labels import is_share
from knife.tune.recording import SweepRecord
from knife.tune.space import Space, describe
from knife.tune.sweep_plan import SweepPlan
from knife.tune.trial import SCORE, config_of, point_of
from knife.tune.trials import State, TrialRow

_WORDS = {
    "search": "search",
    "seeds": "more seeds for the best",
    "baseline": "settings of finetune",
    "final": "winner and finetune",
}


class Board:
    """Shows a sweep while it runs: a live display in a terminal, plain lines anywhere else."""

    def __init__(self, plan: SweepPlan, record: SweepRecord, slots: int) -> None:
        self.plan = plan
        self.record = record
        self.slots = slots
        self.console = Console(stderr=True, highlight=False)
        self.reader = SourceReader()
        self.best: float | None = None
        self._step: _Step | None = None
        self._told: set[int] = set()
        self._live: Live | None = None

    def __enter__(self) -> Self:
        self._say(
            f"{self.plan.trials} trials, {self.slots} at a time, "
            f"{len(self.plan.teachers)} distinct teachers; starting …"
        )
        if self.console.is_terminal:
            spinner = Spinner("dots")
            self._live = Live(
                console=self.console,
                get_renderable=lambda: self._step.render(spinner) if self._step else Text(""),
                refresh_per_second=4,
                transient=True,
            )
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._live.stop()

    def step(self, name: str, params: list[dict[str, Any]]) -> "_Step":
        """A step begins, with trials of these params where they are known."""
        self._step = _Step(self, name, len(params) or self.plan.trials)
        return self._step

    def all_ended(self, rows: Sequence[TrialRow]) -> None:
        """The search's trials as they have ended, those of earlier starts included."""
        for row in rows:
            seeds = list(row.scores) or None
            if row.number not in self._told:
                self.tell(row.number, {"point": row.point, "seeds": seeds})
            self.record.ended(row)

    def tell(self, number: int, params: dict[str, Any]) -> None:
        """Let MLflow know of a trial, or of more seeds of it."""
        self._told.add(number)
        point = point_of(params, self.plan.space)
        self.record.started(number, point, self._plan(params))

    def _plan(self, params: dict[str, Any]) -> Plan | None:
        try:
            return plan_run(config_of(params, self.plan.space), self.reader, elsewhere=True)
        except UserError:
            # The trial itself says so.
            return None

    def _say(self, line: str) -> None:
        self.console.print(line, markup=False, soft_wrap=True)


@dataclass
class _Step:
    """The listener of one step."""

    board: Board
    name: str
    total: int
    since: float = field(default_factory=time.monotonic)
    done: int = 0
    before: int = 0
    pruned: int = 0
    running: dict[int, dict[str, Any]] = field(default_factory=dict)
    seconds: float = 0.0

    def resumed(self, done: int) -> None:
        """So many trials have ended at an earlier start."""
        self.done = self.before = done

    def started(self, number: int, params: dict[str, Any]) -> None:
        """A trial starts, or starts again."""
        self.running[number] = {"params": params, "since": time.monotonic()}
        if self.name in ("search", "seeds"):
            self.board.tell(self._trial(number), params)

    def reported(self, number: int, result: dict[str, Any]) -> None:
        """A trial has a score so far."""
        self.running.setdefault(number, {"params": result["config"], "since": time.monotonic()})
        self.running[number] |= {"score": result[SCORE], "epoch": result["epoch"]}
        if self.name == "search":
            self.board.record.reported(number, result["epoch"], result[SCORE])

    def ended(self, number: int, state: State) -> None:
        """A trial has ended."""
        last = self.running.pop(number, {"params": {}, "since": time.monotonic()})
        seconds = time.monotonic() - last["since"]
        self.done, self.seconds = self.done + 1, self.seconds + seconds
        self.pruned += state == "pruned"
        space, score = self.board.plan.space, last.get("score")
        words = "failed" if state == "failed" else ""
        if score is not None and state != "failed":
            words = score_words(space, score) + (" (pruned)" if state == "pruned" else "")
            if self.name == "search" and state == "finished" and self._better(score):
                self.board.best = score
                words += ", the best so far"
        point = describe(point_of(last["params"], space)) if last["params"] else ""
        self.board._say(
            f"[{self.done}/{self.total}] {self._title(number)}: {words} in {clock(seconds)}"
            + (f"  {point}" if point else "")
        )

    def render(self, spinner: Spinner) -> RenderableType:
        """The step as it stands."""
        grid = Table.grid(padding=(0, 1))
        words = f"{self.done} of {self.total} trials done"
        words += f" ({self.pruned} pruned)" if self.pruned else ""
        if self.board.best is not None:
            words += f", best {score_words(self.board.plan.space, self.board.best)}"
        if self.done > self.before:
            each = self.seconds / (self.done - self.before) / self.board.slots
            left = each * (self.total - self.done)
            words += f", about {clock(left)} left"
        grid.add_row(spinner, Text(_WORDS[self.name], style="bold"), Text(words))
        for number, trial in sorted(self.running.items()):
            at = "starting"
            if "score" in trial:
                score = score_words(self.board.plan.space, trial["score"])
                at = f"epoch {trial['epoch']}, {score}"
            grid.add_row("", Text(self._title(number), style="dim"), Text(at, style="dim"))
        return grid

    def _better(self, score: float) -> bool:
        sign = 1 if self.board.plan.space.sweep.direction == "max" else -1
        return self.board.best is None or sign * score > sign * self.board.best

    def _trial(self, number: int) -> int:
        """The search's trial that a trial of this step belongs to."""
        return int(self.running[number]["params"].get("trial", number))

    def _title(self, number: int) -> str:
        return f"trial {number}" if self.name == "search" else f"{_WORDS[self.name]}, {number}"


def score_words(space: Space, score: float) -> str:
    """A score for people."""
    return f"dev {100 * score:.1f} %" if is_share(space) else f"dev loss {score:.4f}"
