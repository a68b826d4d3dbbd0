"""A sweep's progress on stderr: every trial's start, scores and end."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Self

from rich.spinner import Spinner
from rich.text import Text

from knife.core.words import counted
from knife.plan.stage import Stage
from knife.terminal.console import can_draw, clock, drawn, progress_console, say_line
from knife.terminal.progress import Progress
from knife.train.follow import Follower
from knife.tune.progress.phase_progress import PhaseProgress, TrialProgress, score_words
from knife.tune.search.about import SweepAbout
from knife.tune.search.study import best
from knife.tune.search.sweep_plan import SweepPlan
from knife.tune.search.trial import Trial, point_of
from knife.tune.search.trials import LATER_STEPS, State, TrialRow

# Seconds between two status lines, where nothing is drawn.
STATUS_SECONDS = 60.0
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
        self.best: tuple[int, float] | None = None
        #: How often a trial reused teacher states made by another trial or an earlier run.
        self.reused = 0
        self._states: set[tuple[str, str]] = set()
        self._followed: set[tuple[str, str]] = set()
        self._phase: _Phase | None = None
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
                drawn(self.console, lambda: self._phase.drawing(spinner) if self._phase else [])
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._drawn.close()

    def phase(self, name: str, params: list[dict[str, Any]]) -> "_Phase":
        """Begin a phase, with trials of these params if they are known, and return its listener."""
        trials = self.plan.trials
        self._phase = _Phase(self, PhaseProgress(name, len(params) or trials, trials, self.slots))
        return self._phase

    def judge(self, rows: Sequence[TrialRow]) -> None:
        """Find the best of the search's trials."""
        if found := best(self.plan.space, rows):
            assert found.score is not None
            self.best = found.number, found.score

    def follow(self, trial: Trial) -> Progress:
        """Follow the stages of a starting trial, and return its progress."""
        for stage in trial.stages:
            self._follow(stage)
        states = {(stage.kind, stage.key) for stage in trial.stages if stage.kind == "states"}
        missing = {(stage.kind, stage.key) for stage in trial.missing}
        self.reused += bool(states & self._states or states - missing)
        self._states |= states
        return Progress(trial.missing, trial.plan)

    def say(self, *lines: str) -> None:
        """Print lines above what is drawn."""
        for line in [*lines, *(f"note: {note}" for note in self.follower.take_notes())]:
            say_line(self.console, line)

    def _follow(self, stage: Stage) -> None:
        """Have a stage's journal read once only: reading it from the start repeats its notes."""
        artifact = (stage.kind, stage.key)
        if artifact not in self._followed:
            self._followed.add(artifact)
            self.follower.follow(*artifact)


@dataclass
class _Phase:
    """The listener of one phase."""

    sweep: SweepProgress
    progress: PhaseProgress
    said: float = field(default_factory=time.monotonic)

    def resumed(self, rows: list[TrialRow]) -> None:
        """Count the trials that ended at an earlier start."""
        self.progress.before = len(rows)
        # The budget may have been lowered below what was already done.
        self.progress.total = max(self.progress.total, len(rows))
        if self.progress.name == "search":
            self.sweep.judge(rows)

    def started(self, params: dict[str, Any], trial: Trial | None) -> None:
        """Note that a trial starts."""
        number, phase = int(params["number"]), self.progress.name
        if phase in ("search", "seeds"):
            point, plan = point_of(params, self.sweep.plan.space), trial.plan if trial else None
            self.sweep.about.started(int(params.get("trial", number)), point, plan, phase)
        followed = self.sweep.follow(trial) if trial else None
        self.progress.running[number] = TrialProgress(params, followed)

    def reported(self, number: int, score: float) -> None:
        """Note a trial's score so far."""
        self.progress.running[number].score = score
        self._print_status()

    def noted(self, text: str) -> None:
        """Print a note."""
        self.sweep.say(f"note: {text}")

    def ended(self, number: int, state: State, why: str = "") -> None:
        """Note that a trial has ended."""
        progress, space = self.progress, self.sweep.plan.space
        last = progress.running.pop(number)
        progress.ends[state] += 1
        progress.seconds += last.seconds
        words, also = "failed", f", {why}" if why else ""
        if state != "failed":
            score = "" if last.score is None else score_words(space, last.score)
            words = f"{score} (pruned)".lstrip() if state == "pruned" else score
        finished = progress.name == "search" and state == "finished"
        if finished and last.score is not None and self._is_best(last.score):
            self.sweep.best = number, last.score
            also = ", the best so far"
        position = f"[{progress.done}/{progress.total}] {self._title(number)}"
        words = f"{position}: {words} in {clock(last.seconds)}{also}  {last.point(space)}"
        self.sweep.say(words.rstrip())
        self._print_status()

    def drawing(self, spinner: Spinner) -> list[Text]:
        """Return the status of the phase, and a line for each running trial."""
        turn = spinner.render(self.sweep.console.get_time())
        assert isinstance(turn, Text)
        first, *others = self._lines()
        lines = [Text.assemble(turn, (f" {_WORDS[self.progress.name]}: ", "bold"), first)]
        lines += [Text(f"  {line}") for line in others]
        for number, trial in sorted(self.progress.running.items()):
            words = f"  {number}: {trial.words(self.sweep.plan.space)}"
            lines.append(Text(words, style="dim"))
        return lines

    def _lines(self) -> list[str]:
        sweep = self.sweep
        self.progress.look(sweep.follower.newest())
        lines = [self.progress.counts()]
        if sweep.best:
            number, score = sweep.best
            lines.append(f"best {score_words(sweep.plan.space, score)}, trial {number}")
        if sweep.reused:
            lines.append(f"teacher states reused {counted(sweep.reused, 'time')}")
        return [*lines, *filter(None, [self.progress.left(sweep.plan.space.sweep)])]

    def _print_status(self) -> None:
        """Print a status line from time to time if nothing is drawn."""
        now = time.monotonic()
        if not can_draw(self.sweep.console) and now - self.said >= STATUS_SECONDS:
            self.said = now
            self.sweep.say(f"{_WORDS[self.progress.name]}: {'; '.join(self._lines())}")

    def _is_best(self, score: float) -> bool:
        sign = 1 if self.sweep.plan.space.sweep.direction == "max" else -1
        return self.sweep.best is None or sign * score > sign * self.sweep.best[1]

    def _title(self, number: int) -> str:
        name = self.progress.name
        return f"trial {number}" if name == "search" else f"{_WORDS[name]}, {number}"
