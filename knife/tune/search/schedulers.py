"""Schedulers that remember reports across restarts, which those of Ray Tune do not."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    MedianStoppingRule,
    TrialScheduler,
)

from knife.tune.search.history import read_history
from knife.tune.search.settings import Sweep
from knife.tune.search.trial import SCORE, trial_key


@dataclass(frozen=True)
class _Known:
    """The part of a trial that a scheduler reads."""

    trial_id: str


class _Remembers(TrialScheduler):  # type: ignore[misc]
    """Replays the reports of earlier starts before it judges the first one of this start.

    A trial's report of an epoch is judged once: a restarted trial that reports the epoch again gets
    the same answer.
    """

    #: The experiment's folder, with the history of its trials.
    folder: Path
    _answers: dict[tuple[str, int], str] | None = None

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Do nothing: a trial is added at its first report."""

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Do nothing: the last report has been judged already and would count twice."""

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """Do nothing: a trial's reports still count."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:  # noqa: ARG002
        """Judge a trial's report. A failed trial reports no score and is not judged."""
        if SCORE not in result:
            return str(TrialScheduler.CONTINUE)
        if self._answers is None:
            self._answers = {}
            for line in read_history(self.folder):
                if "report" in line:
                    self._judge(self._answers, line["trial"], line["report"])
        return self._judge(self._answers, trial_key(trial.config), result)

    def _judge(self, answers: dict[tuple[str, int], str], key: str, result: dict[str, Any]) -> str:
        place = (key, result["epoch"])
        if place not in answers:
            trial, row = _Known(key), {"epoch": result["epoch"], SCORE: result[SCORE]}
            if all(known != key for known, _ in answers):
                super().on_trial_add(None, trial)
            answers[place] = str(super().on_trial_result(None, trial, row))
        return answers[place]


class Asha(_Remembers, AsyncHyperBandScheduler):  # type: ignore[misc]
    """ASHA (Li et al. 2020, arXiv 1810.05934) that survives a restart of its driver."""


class Median(_Remembers, MedianStoppingRule):  # type: ignore[misc]
    """The median stopping rule (Golovin et al. 2017, section 3.2.2) that survives a restart."""

    def _on_insufficient_samples(self, *_: Any) -> str:
        """Continue: Ray's rule would pause the trial for a waiting one, and ours would restart."""
        return str(TrialScheduler.CONTINUE)


def scheduler(sweep: Sweep, epochs: int, folder: Path) -> TrialScheduler:
    """Return the scheduler that ends trials early, by epoch, given the experiment's folder."""
    settings = sweep.scheduler
    judged: dict[str, Any] = {"time_attr": "epoch", "metric": SCORE, "mode": sweep.direction}
    if settings.name == "none":
        return FIFOScheduler()
    found: _Remembers
    if settings.name == "asha":
        # Beyond the last epoch: a trial that reaches that one has a student to keep.
        judged |= {"reduction_factor": settings.reduction, "max_t": epochs + 1}
        found = Asha(**judged, grace_period=settings.grace)
    else:
        found = Median(**judged, grace_period=settings.grace)
    found.folder = folder
    return found
