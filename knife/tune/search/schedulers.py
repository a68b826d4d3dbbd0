"""Schedulers that know after a restart what they had heard, which Ray Tune does not keep."""

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
    """A trial as far as a scheduler looks at it."""

    trial_id: str


class _Remembers(TrialScheduler):  # type: ignore[misc]
    """Writes down every report before it judges it, and hears all of them again after a restart.

    What it knows hangs on its file alone: a trial's report of an epoch is judged once, and a trial
    that starts again and reports the epoch again gets the same answer.
    """

    heard: Path
    _answers: dict[tuple[str, int], str] | None = None

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """A trial is known from its first report on."""

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """The last report was judged when it came; heard twice, it would count twice."""

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """What a trial has reported stays true."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:  # noqa: ARG002
        """Judge a trial; one that fails ends without a score."""
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
    """Keys of the trials that a scheduler ended."""
    return {row["pruned"] for row in _rows(folder / _HEARD) if "pruned" in row}


def _rows(path: Path) -> list[dict[str, Any]]:
    """The whole rows of what was heard; a kill may have cut the last one."""
    lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _whole_rows(path: Path) -> list[dict[str, Any]]:
    """Those rows, and the cut one taken out of the file, so that others can follow."""
    if path.is_file():
        with path.open("r+b") as file:
            file.truncate(file.read().rfind(b"\n") + 1)
    return _rows(path)


class Asha(_Remembers, AsyncHyperBandScheduler):  # type: ignore[misc]
    """ASHA (Li et al. 2020, arXiv 1810.05934) that outlives its driver."""


class Median(_Remembers, MedianStoppingRule):  # type: ignore[misc]
    """The median stopping rule (Golovin et al. 2017, section 3.2.2) that outlives its driver."""

    def _on_insufficient_samples(self, *_: Any) -> str:
        """Go on: Ray's rule lets a trial pause for one that waits, and ours would start anew."""
        return str(TrialScheduler.CONTINUE)


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
