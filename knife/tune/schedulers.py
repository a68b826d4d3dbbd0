"""Schedulers that know after a restart what they had heard, which Ray Tune does not keep."""

import json
from pathlib import Path
from typing import Any

from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    MedianStoppingRule,
    TrialScheduler,
)

from knife.tune.settings import Sweep
from knife.tune.trial import SCORE

_HEARD = "heard.jsonl"


class _Remembers(TrialScheduler):  # type: ignore[misc]
    """Writes down every report before it judges it, and hears all of them again after a restart.

    So a trial is judged by the same reports of the others, however often the driver was killed.
    """

    heard: Path
    _recalled = False

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Judge a trial."""
        if not self._recalled:
            self._recalled = True
            self._recall(tune_controller)
        row = {"trial": trial.trial_id, "epoch": result["epoch"], SCORE: result[SCORE]}
        self._write(row)
        decision = str(super().on_trial_result(tune_controller, trial, result))
        if decision == TrialScheduler.STOP:
            self._write({"pruned": trial.trial_id})
        return decision

    def _write(self, row: dict[str, Any]) -> None:
        with self.heard.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def _recall(self, tune_controller: Any) -> None:
        trials = {trial.trial_id: trial for trial in tune_controller.get_trials()}
        known: set[str] = set()
        for row in _rows(self.heard):
            trial = trials.get(row.pop("trial", ""))
            # A driver that was killed may have judged a trial that it had not written down yet.
            if trial is None:
                continue
            if trial.is_finished() and trial.trial_id not in known:
                known.add(trial.trial_id)
                self.on_trial_add(tune_controller, trial)
            super().on_trial_result(tune_controller, trial, row)


def pruned(folder: Path) -> set[str]:
    """Ids of the trials that a scheduler ended."""
    return {row["pruned"] for row in _rows(folder / _HEARD) if "pruned" in row}


def _rows(path: Path) -> list[dict[str, Any]]:
    """The whole rows of what was heard; a kill may have cut the last one."""
    lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


class Asha(_Remembers, AsyncHyperBandScheduler):  # type: ignore[misc]
    """ASHA (Li et al. 2020, arXiv 1810.05934) that outlives its driver."""


class Median(_Remembers, MedianStoppingRule):  # type: ignore[misc]
    """The median stopping rule (Golovin et al. 2017, section 3.2.2) that outlives its driver."""


def scheduler(sweep: Sweep, epochs: int, folder: Path) -> TrialScheduler:
    """Who ends trials early, by epochs; what it hears is kept in `folder`."""
    settings = sweep.scheduler
    judged: dict[str, Any] = {"time_attr": "epoch", "metric": SCORE, "mode": sweep.direction}
    if settings.name == "none":
        return FIFOScheduler()
    found: _Remembers
    if settings.name == "asha":
        # Beyond the last epoch: who comes to it has a student to keep.
        judged |= {"reduction_factor": settings.reduction, "max_t": epochs + 1}
        found = Asha(**judged, grace_period=settings.grace)
    else:
        found = Median(**judged, grace_period=settings.grace)
    found.heard = folder / _HEARD
    return found
