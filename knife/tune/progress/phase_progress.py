"""The progress of a phase of a sweep: running trials, ended trials, time left."""

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from knife.config.overrides import describe
from knife.core.words import counted
from knife.terminal.console import clock
from knife.terminal.progress import Progress
from knife.train.journal import Row
from knife.tune.search.labels import is_share
from knife.tune.search.settings import Sweep
from knife.tune.search.space import Space
from knife.tune.search.trial import point_of
from knife.tune.search.trials import State


@dataclass
class TrialProgress:
    """A running trial.

    Attributes:
        params: its params.
        progress: how far its stages are; None if it cannot be planned.
        score: its best score so far.
    """

    params: dict[str, Any]
    progress: Progress | None = None
    score: float | None = None
    since: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """How long it has been running."""
        return time.monotonic() - self.since

    @property
    def seconds_left(self) -> float | None:
        """An estimate; None if unknown."""
        return self.progress.seconds_left()[1] if self.progress else None

    def words(self, space: Space) -> str:
        """Describe what it is doing, for how long, and its point."""
        stage = self.progress.stage if self.progress else None
        parts = ["at work"]
        if self.progress and stage:
            parts = [f"{stage.label} {self.progress.units}/{self.progress.total}"]
        if self.score is not None:
            parts.append(score_words(space, self.score))
        return f"{', '.join([*parts, clock(self.seconds)])}  {self.point(space)}".rstrip()

    def point(self, space: Space) -> str:
        """Return its point in words; empty if its params are a run config."""
        return describe(point_of(self.params, space))


@dataclass
class PhaseProgress:
    """The progress of a phase.

    Attributes:
        name: the phase: search, seeds, baseline or final.
        total: the most trials that it will have.
        trials: the number of trials in the search.
        slots: trials that run at a time.
        before: trials that ended at an earlier start.
        ends: trials that have ended since, by state.
        seconds: total run time of the trials in `ends`.
        running: running trials, by number.
    """

    name: str
    total: int
    trials: int
    slots: int
    before: int = 0
    ends: Counter[State] = field(default_factory=Counter)
    seconds: float = 0.0
    running: dict[int, TrialProgress] = field(default_factory=dict)
    since: float = field(default_factory=time.monotonic)

    @property
    def done(self) -> int:
        """Trials that have ended."""
        return self.before + self.ends.total()

    def look(self, newest: dict[tuple[str, str], Row]) -> None:
        """Update the running trials from the newest journal rows of their stages."""
        for trial in list(self.running.values()):
            if trial.progress:
                trial.progress.look(newest)

    def counts(self) -> str:
        """Return in words how many trials are done, pruned, failed and running."""
        bad: tuple[State, ...] = ("pruned", "failed")
        ends = ", ".join(f"{self.ends[state]} {state}" for state in bad if self.ends[state])
        ends = f" ({ends})" if ends else ""
        total = counted(self.total, "trial")
        return f"{self.done} of {total} done{ends}, {len(self.running)} running"

    def left(self, sweep: Sweep) -> str:
        """Estimate the time left from the trials so far; empty if there are none, or if the running
        ones have already taken longer."""
        running = list(self.running.values())
        pairs = [(trial.seconds, trial.seconds_left) for trial in running]
        known = [seconds + left for seconds, left in pairs if left]
        if not self.ends and not known:
            return ""
        each = self.seconds / self.ends.total() if self.ends else sum(known) / len(known)
        lefts = [max(each - seconds, 0) if left is None else left for seconds, left in pairs]
        waiting = max(self.total - self.done - len(running), 0)
        of_phase = max([*lefts, (sum(lefts) + waiting * each) / self.slots])
        if self.name == "search" and sweep.budget.hours:
            budget = 3600 * sweep.budget.hours - (time.monotonic() - self.since)
            of_phase = min(of_phase, max(budget, 0))
        if of_phase < 1:
            return ""
        of_sweep = of_phase + self._later(sweep) * each / self.slots
        words = f"about {clock(of_phase)} left"
        return f"{words}, {clock(of_sweep)} of the sweep" if of_sweep > of_phase else words

    def _later(self, sweep: Sweep) -> int:
        """Return about how many trials the later phases have."""
        counts = {
            "search": 0,
            "seeds": len(sweep.more_seeds) * min(sweep.seeds.best, self.trials),
            "baseline": 2 if sweep.final else 0,
            "final": 2 * len(sweep.final.seeds) if sweep.final else 0,
        }
        names = list(counts)
        return sum(counts[name] for name in names[names.index(self.name) + 1 :])


def score_words(space: Space, score: float) -> str:
    """Return a score in words."""
    return f"dev {100 * score:.1f} %" if is_share(space) else f"dev loss {score:.4f}"
