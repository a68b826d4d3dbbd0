"""Ray Tune's schedulers, which decide here over restarts: they judge earlier reports again."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ray.tune.schedulers import AsyncHyperBandScheduler, MedianStoppingRule, TrialScheduler

from knife.tune.search.history import read_history
from knife.tune.search.settings import Sweep
from knife.tune.search.trial import SCORE, Report


@dataclass(frozen=True)
class _Known:
    """The part of a trial that a scheduler reads."""

    trial_id: str


class Judge(Protocol):
    """Decides which trials end early."""

    def goes_on(self, key: str, report: Report) -> bool:
        """Whether the trial with this key goes on after its report of an epoch."""


class _Remembers(TrialScheduler):  # type: ignore[misc]
    """Replays the reports of earlier starts before it judges the first one of this start.

    A trial's report of an epoch is judged once: a restarted trial that reports the epoch again gets
    the same answer.
    """

    #: The phase's folder, with the history of its trials.
    folder: Path
    _answers: dict[tuple[str, int], bool] | None = None

    def goes_on(self, key: str, report: Report) -> bool:
        """Judge a trial's report of an epoch."""
        if self._answers is None:
            self._answers = {}
            for line in read_history(self.folder):
                if "report" in line:
                    self._judge(self._answers, line["trial"], line["report"])
        return self._judge(self._answers, key, report)

    def _judge(self, answers: dict[tuple[str, int], bool], key: str, report: Report) -> bool:
        place = (key, report["epoch"])
        if place not in answers:
            trial, row = _Known(key), {"epoch": report["epoch"], SCORE: report[SCORE]}
            if all(known != key for known, _ in answers):
                self.on_trial_add(None, trial)
            answer = self.on_trial_result(None, trial, row)
            answers[place] = answer != TrialScheduler.STOP
        return answers[place]


class Asha(_Remembers, AsyncHyperBandScheduler):  # type: ignore[misc]
    """ASHA (Li et al. 2020, arXiv 1810.05934) that survives a restart of its driver."""


class Median(_Remembers, MedianStoppingRule):  # type: ignore[misc]
    """The median stopping rule (Golovin et al. 2017, section 3.2.2) that survives a restart."""

    def _on_insufficient_samples(self, *_: Any) -> str:
        """Continue: Ray's rule would pause the trial for a waiting one, and ours would restart."""
        return str(TrialScheduler.CONTINUE)


def judge(sweep: Sweep, epochs: int, folder: Path) -> Judge | None:
    """Return who ends trials early, by epoch, given the phase's folder; None if nobody does."""
    settings = sweep.scheduler
    judged: dict[str, Any] = {"time_attr": "epoch", "metric": SCORE, "mode": sweep.direction}
    found: Asha | Median
    if settings.name == "none":
        return None
    if settings.name == "asha":
        # Beyond the last epoch: a trial that reaches that one has a student to keep.
        judged |= {"reduction_factor": settings.reduction, "max_t": epochs + 1}
        found = Asha(**judged, grace_period=settings.grace)
    else:
        found = Median(**judged, grace_period=settings.grace)
    found.folder = folder
    return found
