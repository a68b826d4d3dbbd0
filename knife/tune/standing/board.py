"""A sweep's progress on stderr: every trial's start, scores and end."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from rich.spinner import Spinner
from rich.text import Text

from knife.core.errors import UserError
from knife.core.words import counted
from knife.plan.plan import Plan, needed, plan_run
from knife.plan.sources import SourceReader
from knife.plan.stage import Stage
from knife.store.store import Store
from knife.terminal.console import can_draw, clock, drawn, progress_console, say_line
from knife.terminal.progress import Progress
from knife.train.follow import Follower
from knife.tune.search.about import SweepAbout
from knife.tune.search.study import best
from knife.tune.search.sweep_plan import SweepPlan
from knife.tune.search.trial import SCORE, Task, config_of, point_of, trial_stages
from knife.tune.search.trials import LATER_STEPS, State, TrialRow
from knife.tune.standing.standing import StepProgress, TrialProgress, score_words

# Seconds between two status lines, where nothing is drawn.
STANDING_SECONDS = 60.0
_WORDS = {"search": "search"} | LATER_STEPS


class SweepProgress:
    """Shows a sweep while it runs: drawn in a terminal, plain lines anywhere else.

    Args:
        plan: the sweep.
        about: the record in the sweep's folder.
        follower: reads the journals of the trials' stages.
        slots: trials that run at a time.
        links: other places to look, one line each.
        quiet: show nothing.
    """

    def __init__(
        self,
        plan: SweepPlan,
        about: SweepAbout,
        follower: Follower,
        slots: int,
        links: Sequence[str] = (),
        *,
        quiet: bool = False,
    ) -> None:
        self.plan = plan
        self.about = about
        self.follower = follower
        self.slots = slots
        self.links = links
        self.console = progress_console(quiet=quiet)
        self.reader = SourceReader()
        self.store = Store(plan.config.store, write=False)
        self.best: tuple[int, float] | None = None
        #: How often a trial reused teacher states made by another trial or an earlier run.
        self.reused = 0
        self._states: set[str] = set()
        self._followed: set[tuple[str, str]] = set()
        self._step: _Step | None = None
        self._drawn = ExitStack()

    def __enter__(self) -> Self:
        self.say(
            f"{counted(self.plan.trials, 'trial')}, {self.slots} at a time, "
            f"{counted(len(self.plan.teachers), 'distinct teacher')}; starting …",
            *self.links,
        )
        if can_draw(self.console):
            spinner = Spinner("dots")
            self._drawn.enter_context(
                drawn(self.console, lambda: self._step.drawing(spinner) if self._step else [])
            )
        return self

    def __exit__(self, *_: object) -> None:
        self.rest()

    def rest(self) -> None:
        """Stop drawing, so that another display can draw."""
        self._drawn.close()

    def step(self, name: str, params: list[dict[str, Any]]) -> "_Step":
        """Begin a step, with trials of these params if they are known, and return its listener."""
        trials = self.plan.trials
        self._step = _Step(self, StepProgress(name, len(params) or trials, trials, self.slots))
        return self._step

    def judge(self, rows: Sequence[TrialRow]) -> None:
        """Find the best of the search's trials."""
        if found := best(self.plan.space, rows):
            assert found.score is not None
            self.best = found.number, found.score

    def planned(self, params: dict[str, Any]) -> Plan | None:
        """Return the plan of a trial, if it can be made."""
        try:
            return plan_run(config_of(params, self.plan.space), self.reader, elsewhere=True)
        except UserError:
            # The trial itself reports the error.
            return None

    def progress(self, step: str, plan: Plan) -> Progress:
        """Follow the stages of a starting trial, and return its progress."""
        last = step == "final"
        task = Task(self.plan.space, last or self.plan.space.sweep.test, last, Path())
        stages = trial_stages(plan, plan.members, task)
        have = self.store.have(stages)
        for stage in stages:
            self._follow(stage)
            if stage.kind == "states":
                self.reused += stage.key in self._states or (stage.kind, stage.key) in have
                self._states.add(stage.key)
        return Progress(needed(stages, have), plan)

    def say(self, *lines: str) -> None:
        """Print lines above what is drawn."""
        for line in [*lines, *(f"note: {note}" for note in self.follower.take_notes())]:
            say_line(self.console, line)

    def _follow(self, stage: Stage) -> None:
        """Have a stage's journal read once only: reading it from the start repeats its notes."""
        place = (stage.kind, stage.key)
        if place not in self._followed:
            self._followed.add(place)
            self.follower.follow(*place)


@dataclass
class _Step:
    """The listener of one step."""

    board: SweepProgress
    standing: StepProgress
    said: float = field(default_factory=time.monotonic)

    def resumed(self, rows: list[TrialRow]) -> None:
        """Count the trials that ended at an earlier start."""
        self.standing.before = len(rows)
        # The budget may have been lowered below what was already done.
        self.standing.total = max(self.standing.total, len(rows))
        if self.standing.name == "search":
            self.board.judge(rows)

    def started(self, number: int, params: dict[str, Any]) -> None:
        """Note that a trial starts or restarts."""
        again = self.standing.running.get(number)
        trial = self.standing.running[number] = TrialProgress(params)
        plan = self.board.planned(params)
        step = self.standing.name
        if step in ("search", "seeds"):
            point = point_of(params, self.board.plan.space)
            self.board.about.started(int(params.get("trial", number)), point, plan, step)
        if again:
            trial.progress, trial.since = again.progress, again.since
        elif plan:
            trial.progress = self.board.progress(self.standing.name, plan)

    def reported(self, number: int, result: dict[str, Any]) -> None:
        """Note a trial's score so far."""
        trial = self.standing.running.setdefault(number, TrialProgress(result["config"]))
        trial.score = result[SCORE]
        self._stand()

    def ended(self, number: int, state: State, why: str = "") -> None:
        """Note that a trial has ended."""
        standing, space = self.standing, self.board.plan.space
        last = standing.running.pop(number, TrialProgress({}))
        standing.ends[state] += 1
        standing.seconds += last.seconds
        words, also = "failed", f", {why}" if why else ""
        if state != "failed":
            score = "" if last.score is None else score_words(space, last.score)
            words = f"{score} (pruned)".lstrip() if state == "pruned" else score
        finished = standing.name == "search" and state == "finished"
        if finished and last.score is not None and self._is_best(last.score):
            self.board.best = number, last.score
            also = ", the best so far"
        place = f"[{standing.done}/{standing.total}] {self._title(number)}"
        words = f"{place}: {words} in {clock(last.seconds)}{also}  {last.point(space)}"
        self.board.say(words.rstrip())
        self._stand()

    def drawing(self, spinner: Spinner) -> list[Text]:
        """Return the status of the step, and a line for each running trial."""
        turn = spinner.render(self.board.console.get_time())
        assert isinstance(turn, Text)
        first, *others = self._lines()
        lines = [Text.assemble(turn, (f" {_WORDS[self.standing.name]}: ", "bold"), first)]
        lines += [Text(f"  {line}") for line in others]
        for number, trial in sorted(self.standing.running.items()):
            words = f"  {number}: {trial.words(self.board.plan.space)}"
            lines.append(Text(words, style="dim"))
        return lines

    def _lines(self) -> list[str]:
        board = self.board
        self.standing.look(board.follower.newest())
        lines = [self.standing.counts()]
        if board.best:
            number, score = board.best
            lines.append(f"best {score_words(board.plan.space, score)}, trial {number}")
        if board.reused:
            lines.append(f"teacher states reused {counted(board.reused, 'time')}")
        return [*lines, *filter(None, [self.standing.left(board.plan.space.sweep)])]

    def _stand(self) -> None:
        """Print a status line from time to time if nothing is drawn."""
        now = time.monotonic()
        if not can_draw(self.board.console) and now - self.said >= STANDING_SECONDS:
            self.said = now
            self.board.say(f"{_WORDS[self.standing.name]}: {'; '.join(self._lines())}")

    def _is_best(self, score: float) -> bool:
        sign = 1 if self.board.plan.space.sweep.direction == "max" else -1
        return self.board.best is None or sign * score > sign * self.board.best[1]

    def _title(self, number: int) -> str:
        name = self.standing.name
        return f"trial {number}" if name == "search" else f"{_WORDS[name]}, {number}"
