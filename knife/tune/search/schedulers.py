"""Schedulers that remember reports across restarts, which those of Ray Tune do not."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    MedianStoppingRule,
    TrialScheduler,
)

from knife.core import strict_json
from knife.tune.search.settings import Sweep
from knife.tune.search.trial import SCORE, trial_key

_HEARD = "heard.jsonl"


@dataclass(frozen=True)
class _Known:
    """The part of a trial that a scheduler reads."""

    trial_id: str


class _Remembers(TrialScheduler):  # type: ignore[misc]
    """Writes every report to disk before judging it, and replays them all after a restart.

    Its state depends on its file alone: a trial's report of an epoch is judged once, and a
    restarted trial that reports the epoch again gets the same answer.
    """

    heard: Path
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
            for row in _whole_rows(self.heard):
                if "trial" in row:
                    self._judge(row)
        key, epoch = trial_key(trial.config), result["epoch"]
        if (key, epoch) not in self._answers:
            row = {"trial": key, "epoch": epoch, SCORE: result[SCORE]}
            self._write(row)
            self._judge(row)
        answer = self._answers[key, epoch]
        if answer == TrialScheduler.STOP and key not in pruned(self.heard.parent):
            self._write({"pruned": key})
        return answer

    def _judge(self, row: dict[str, Any]) -> None:
        assert self._answers is not None
        trial = _Known(row["trial"])
        if all(key != trial.trial_id for key, _ in self._answers):
            super().on_trial_add(None, trial)
        answer = super().on_trial_result(None, trial, row)
        self._answers[trial.trial_id, row["epoch"]] = str(answer)

    def _write(self, row: dict[str, Any]) -> None:
        with self.heard.open("a") as file:
            file.write(strict_json.dumps(row) + "\n")


def pruned(folder: Path) -> set[str]:
    """Return the keys of the trials that a scheduler ended."""
    return {row["pruned"] for row in _rows(folder / _HEARD) if "pruned" in row}


def _rows(path: Path) -> list[dict[str, Any]]:
    """Return the complete rows of the file; a kill may have truncated the last one."""
    lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _whole_rows(path: Path) -> list[dict[str, Any]]:
    """Return those rows after removing a truncated one from the file, so it can be appended to."""
    if path.is_file():
        with path.open("r+b") as file:
            file.truncate(file.read().rfind(b"\n") + 1)
    return _rows(path)


class Asha(_Remembers, AsyncHyperBandScheduler):  # type: ignore[misc]
    """ASHA (Li et al. 2020, arXiv 1810.05934) that survives a restart of its driver."""


class Median(_Remembers, MedianStoppingRule):  # type: ignore[misc]
    """The median stopping rule (Golovin et al. 2017, section 3.2.2) that survives a restart."""

    def _on_insufficient_samples(self, *_: Any) -> str:
        """Continue: Ray's rule would pause the trial for a waiting one, and ours would restart."""
        return str(TrialScheduler.CONTINUE)


def scheduler(sweep: Sweep, epochs: int, folder: Path) -> TrialScheduler:
    """Return the scheduler that ends trials early, by epoch; its reports are kept in `folder`."""
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
    found.heard = folder / _HEARD
    return found
