"""One experiment of Ray Tune: trials from a searcher, to the end or on from where a kill cut it."""

import json
import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from ray import tune
from ray.tune import Callback, Stopper
from ray.tune.logger import JsonLoggerCallback
from ray.tune.search import SearchGenerator

from knife.cluster.launch import resources
from knife.cluster.session import in_thread
from knife.config import Scale
from knife.train.checkpoint import write_json
from knife.tune.schedulers import pruned, trial_key
from knife.tune.settings import Budget
from knife.tune.space import Space
from knife.tune.trial import SCORE, Task, point_of, run_trial
from knife.tune.trials import State, TrialRow

log = logging.getLogger(__name__)

# A trial whose worker was lost starts again so many times.
_LOST_WORKERS = 3
# Seconds between two snapshots of Ray Tune's own state; what it lacks after a kill is made again
# from the store.
_SNAPSHOT_SECONDS = "2"


class Listener(Protocol):
    """Who wants to know of trials while they run; called from one thread."""

    def resumed(self, rows: list[TrialRow]) -> None:
        """The experiment goes on; these of its trials have ended before."""

    def started(self, number: int, params: dict[str, Any]) -> None:
        """A trial starts, or starts again."""

    def reported(self, number: int, result: dict[str, Any]) -> None:
        """A trial has reported its score so far."""

    def ended(self, number: int, state: State, why: str = "") -> None:
        """A trial has ended, or was pruned; where it failed, by what."""


class Watch(Callback):  # type: ignore[misc]
    """Tells the listener of this process; Ray Tune keeps its callbacks in files."""

    listener: ClassVar[Listener | None] = None
    #: Folder of the notes that failed trials leave.
    failed: ClassVar[Path] = Path()

    def on_trial_start(self, *, trial: Any, **_: Any) -> None:
        """Tell of a start."""
        if self.listener:
            self.listener.started(trial.config["number"], trial.config)

    def on_trial_result(self, *, trial: Any, result: dict[str, Any], **_: Any) -> None:
        """Tell of a report."""
        if self.listener:
            self.listener.reported(trial.config["number"], result)

    def on_trial_complete(self, *, trial: Any, **_: Any) -> None:
        """Tell of an end."""
        if self.listener:
            finished = (trial.last_result or {}).get("finished")
            self.listener.ended(trial.config["number"], "finished" if finished else "pruned")

    def on_trial_error(self, *, trial: Any, **_: Any) -> None:
        """Tell of a failure."""
        if self.listener:
            note = self.failed / f"{trial.trial_id}.txt"
            lines = note.read_text().strip().splitlines() if note.is_file() else []
            self.listener.ended(trial.config["number"], "failed", next(iter(lines), ""))


class Limit(Stopper):  # type: ignore[misc]
    """Ends a search when its time or its GPU-hours are used up, those before a restart included."""

    def __init__(self, budget: Budget, scale: Scale, spent: Path) -> None:
        self._budget = budget
        self._scale = scale
        self._path = spent
        self._since: float | None = None
        self._before = 0.0
        # Seconds of all trials, and of each one when it last reported.
        self._worked = 0.0
        self._last: dict[str, float] = {}
        self._saved = 0.0

    def __reduce__(self) -> Any:
        # Ray Tune keeps it in files. What it has counted is in its own, which is newer.
        return type(self), (self._budget, self._scale, self._path)

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Note how long a trial has been at work."""
        seconds, last = result["time_total_s"], self._last.get(trial_id, 0.0)
        # A trial that has started again counts from nothing.
        self._worked += seconds - last if seconds >= last else seconds
        self._last[trial_id] = seconds
        return False

    def stop_all(self) -> bool:
        """Whether nothing is left of the budget."""
        now = time.monotonic()
        if self._since is None:
            self._since = now
            if self._path.is_file():
                values = json.loads(self._path.read_text())
                self._before = values["seconds"]
                self._worked += values["worked"]
        seconds = self._before + now - self._since
        if now - self._saved > 1:
            self._saved = now
            write_json(self._path, {"seconds": seconds, "worked": self._worked})
        gpus = self._scale.workers * self._scale.gpus_per_worker
        gpu_hours = self._worked * gpus / 3600
        return bool(
            (self._budget.hours and seconds / 3600 >= self._budget.hours)
            or (self._budget.gpu_hours and gpu_hours >= self._budget.gpu_hours)
        )


@dataclass(frozen=True)
class Phase:
    """One experiment.

    Attributes:
        name: names its folder under `folder`, the sweep's.
        task: what its trials have in common.
        scale: what a trial takes.
        trials: how many there are; -1 leaves that to the searcher.
        concurrent: how many at a time at most.
        budget: when it ends early.
    """

    name: str
    folder: Path
    task: Task
    scale: Scale
    trials: int
    concurrent: int
    budget: Budget

    @property
    def path(self) -> Path:
        """The experiment's own folder."""
        return self.folder / self.name

    def run(
        self,
        searcher: Callable[[], Any],
        scheduler: Callable[[], Any],
        listener: Listener,
    ) -> list[TrialRow]:
        """Run every trial that has not ended yet; returns all of them, in order."""
        # Tune's own tables and TensorBoard files have no reader here.
        os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
        os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = _SNAPSHOT_SECONDS
        os.environ["TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S"] = "0"
        os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
        self.path.mkdir(parents=True, exist_ok=True)
        self.task.failed.mkdir(exist_ok=True)
        trainable = self._trainable()
        tuner = self._restored(trainable, searcher)
        if tuner:
            listener.resumed(self._rows(filter(self._has_ended, tuner.get_results())))
        else:
            tuner = tune.Tuner(
                trainable,
                tune_config=tune.TuneConfig(
                    search_alg=searcher(),
                    scheduler=scheduler(),
                    num_samples=self.trials,
                    max_concurrent_trials=self.concurrent,
                    # A worker group of its own ends with the trial that follows it.
                    reuse_actors=self.scale.workers == 1,
                    trial_name_creator=_name,
                    trial_dirname_creator=_name,
                ),
                run_config=tune.RunConfig(
                    name=self.name,
                    storage_path=str(self.folder),
                    stop=Limit(self.budget, self.scale, self.path / "spent.json"),
                    failure_config=tune.FailureConfig(max_failures=_LOST_WORKERS),
                    callbacks=[JsonLoggerCallback(), Watch()],
                    verbose=0,
                ),
            )
        Watch.listener, Watch.failed = listener, self.task.failed
        try:
            results = in_thread(tuner.fit).result()
        finally:
            Watch.listener = None
        return self._rows(results)

    def _restored(self, trainable: Any, searcher: Callable[[], Any]) -> Any:
        """The experiment as an earlier start left it; None where there is none that can be read.

        A kill may have cut Ray Tune's own files. Then its trials begin again under their numbers:
        what they had trained is in the store, and what schedulers had heard in a file of its own.
        """
        if not tune.Tuner.can_restore(str(self.path)):
            return None
        try:
            tuner = tune.Tuner.restore(str(self.path), trainable, resume_unfinished=True)
            SearchGenerator(searcher()).restore_from_dir(str(self.path))
            if len(tuner.get_results()):
                return tuner
        except Exception as error:
            log.info("%s: begun anew: %s", self.path, error)
        for pattern in (
            "tuner.pkl",
            "experiment_state-*",
            "search_gen_state-*",
            "searcher-state-*",
        ):
            for path in self.path.glob(pattern):
                path.unlink()
        return None

    def _trainable(self) -> Any:
        if self.scale.workers == 1:
            wanted = resources(1, self.scale.gpus_per_worker)
        else:
            wanted = resources(0.01, 0)
        with_task = tune.with_parameters(run_trial, task=self.task)
        return tune.with_resources(with_task, wanted)

    def _has_ended(self, result: Any) -> bool:
        metrics = result.metrics or {}
        if result.error or metrics.get("finished"):
            return True
        params = _params(result)
        return params is not None and trial_key(params) in pruned(self.path)

    def _rows(self, results: Any) -> list[TrialRow]:
        ended_early = pruned(self.path)
        rows = []
        for result in results:
            metrics, params = result.metrics or {}, _params(result)
            if params is None:
                # The budget ended before it began.
                continue
            note = self.task.failed / f"{metrics.get('trial_id', Path(result.path).name)}.txt"
            error = note.read_text() if note.is_file() else str(result.error or "")
            state: State = "finished"
            if result.error:
                state = "failed"
            elif not metrics.get("finished"):
                state = "pruned" if trial_key(params) in ended_early else "stopped"
            rows.append(_row(params, metrics, self.task.space, state, _by_epoch(result), error))
        # A kill between two of Ray Tune's files can make it give a number again.
        once = {row.number: row for row in sorted(rows, key=lambda row: row.state == "finished")}
        return sorted(once.values(), key=lambda row: row.number)


def rows_so_far(folder: Path, space: Space) -> tuple[list[TrialRow], list[int]]:
    """Of an experiment that goes on, the trials that have ended, and the numbers of the others
    that have begun; both in order."""
    ended_early, rows, begun = pruned(folder), {}, set()
    for path in folder.glob("*/params.json"):
        # What is being written is left for another look.
        with suppress(ValueError):
            params = json.loads(path.read_text())
            begun.add(params["number"])
            told = path.with_name("result.json")
            lines = told.read_text().splitlines(keepends=True) if told.is_file() else []
            reports = [json.loads(line) for line in lines if line.endswith("\n")]
            last = reports[-1] if reports else {}
            note = folder / "failed" / f"{path.parent.name}.txt"
            state: State | None = "finished" if last.get("finished") else None
            if note.is_file():
                state = "failed"
            elif not state and trial_key(params) in ended_early:
                state = "pruned"
            if state:
                scores = {report["epoch"]: report[SCORE] for report in reports}
                error = note.read_text() if note.is_file() else ""
                rows[params["number"]] = _row(params, last, space, state, scores, error)
    return [rows[number] for number in sorted(rows)], sorted(begun - set(rows))


def _row(
    params: dict[str, Any],
    metrics: dict[str, Any],
    space: Space,
    state: State,
    by_epoch: dict[int, float],
    error: str,
) -> TrialRow:
    return TrialRow(
        number=params["number"],
        point=point_of(params, space),
        state=state,
        score=metrics.get(SCORE) if state != "failed" else None,
        seconds=float(metrics.get("time_total_s", 0.0)),
        by_epoch=by_epoch,
        scores=_by_seed(metrics.get("scores")),
        tests=_by_seed(metrics.get("tests")),
        students=_by_seed(metrics.get("students")),
        error=error or None,
    )


def _name(trial: Any) -> str:
    return str(trial.trial_id)


def _params(result: Any) -> dict[str, Any] | None:
    """What a trial was given; None where it never began."""
    if result.config:
        return dict(result.config)
    # It has not reported anything. A kill may have cut the file; it is written at each start.
    with suppress(FileNotFoundError, ValueError):
        return dict(json.loads((Path(result.path) / "params.json").read_text()))
    return None


def _by_seed(values: dict[str, Any] | None) -> dict[int, Any]:
    return {int(seed): value for seed, value in (values or {}).items()}


def _by_epoch(result: Any) -> dict[int, float]:
    """Score by epoch, of all of a trial's reports."""
    table = result.metrics_dataframe
    if table is None or SCORE not in table:
        return {}
    pairs = zip(table["epoch"], table[SCORE], strict=True)
    return {int(epoch): float(score) for epoch, score in pairs}
