"""One experiment of Ray Tune: the trials that have not ended yet, from any start."""

import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from ray import tune
from ray.tune import Callback, Stopper

from knife.config.run import Scale
from knife.core.atomic import write_json
from knife.launch.launch import resources
from knife.launch.session import in_thread
from knife.tune.search.begun import Begun, begun_trials, note_report, note_start, numbered
from knife.tune.search.searcher import Points
from knife.tune.search.seconds import Seconds
from knife.tune.search.settings import Budget
from knife.tune.search.trial import SCORE, Task, failure_note, run_trial, trial_key
from knife.tune.search.trials import State, TrialRow, first_line

# How often a trial restarts after its worker was lost.
_LOST_WORKERS = 3
_LOST = (
    f"its worker process died {_LOST_WORKERS + 1} times, killed from outside (often as memory ran "
    "out): lower concurrent or student.batch_size"
)
_SPENT = "spent.json"
# Ray Tune's own state, from which no start resumes: the trials' files and the store have it all.
_OF_RAY = ("tuner.pkl", "experiment_state-*", "search_gen_state-*", "searcher-state-*")


class Listener(Protocol):
    """Receives the events of running trials; called from one thread."""

    def resumed(self, rows: list[TrialRow]) -> None:
        """Receive the experiment's trials that ended at an earlier start."""

    def started(self, number: int, params: dict[str, Any]) -> None:
        """A trial starts or restarts."""

    def reported(self, number: int, result: dict[str, Any]) -> None:
        """A trial has reported its score so far."""

    def ended(self, number: int, state: State, why: str = "") -> None:
        """A trial has ended or was pruned; if it failed, `why` is the reason."""


class Watch(Callback):  # type: ignore[misc]
    """Passes events to the listener. Class attributes, since Ray Tune saves callbacks to files."""

    listener: ClassVar[Listener | None] = None
    seconds: ClassVar[Seconds | None] = None
    #: The experiment's folder, and the folder in it with the notes of failed trials.
    folder: ClassVar[Path] = Path()
    failed: ClassVar[Path] = Path()

    def on_step_end(self, iteration: int, trials: list[Any], **_: Any) -> None:  # noqa: ARG002
        """Save how long the trials have run."""
        if self.seconds:
            self.seconds.save(at_most_every=1.0)

    def on_trial_start(self, *, trial: Any, **_: Any) -> None:
        """Report a start."""
        if self.listener and self.seconds:
            self.seconds.started(trial_key(trial.config))
            note_start(self.folder / trial.trial_id, trial.config)
            self.listener.started(trial.config["number"], trial.config)

    def on_trial_result(self, *, trial: Any, result: dict[str, Any], **_: Any) -> None:
        """Pass a report on."""
        if self.listener and SCORE in result:
            note_report(self.folder / trial.trial_id, result)
            self.listener.reported(trial.config["number"], result)

    def on_trial_complete(self, *, trial: Any, **_: Any) -> None:
        """Report an end."""
        if failure_note(self.failed, trial.config).is_file():
            self._ended(trial, "failed")
        else:
            finished = (trial.last_result or {}).get("finished")
            self._ended(trial, "finished" if finished else "pruned")

    def on_trial_error(self, *, trial: Any, **_: Any) -> None:
        """Report a failure."""
        note = failure_note(self.failed, trial.config)
        if self.listener and not note.is_file():
            # A killed worker leaves none.
            note.write_text(_LOST)
        self._ended(trial, "failed")

    def _ended(self, trial: Any, state: State) -> None:
        if self.listener and self.seconds:
            self.seconds.ended(trial_key(trial.config))
            note = failure_note(self.failed, trial.config)
            why = first_line(note.read_text()) if state == "failed" else ""
            self.listener.ended(trial.config["number"], state, why)


class Limit(Stopper):  # type: ignore[misc]
    """Ends a search when its hours or GPU-hours are used up, counted across restarts."""

    def __init__(self, budget: Budget, scale: Scale, spent: Path) -> None:
        self._budget = budget
        self._scale = scale
        self._path = spent
        self._since: float | None = None
        self._before = 0.0
        # Seconds of all trials together, and of each trial at its last report.
        self._worked = 0.0
        self._last: dict[str, float] = {}
        self._saved = 0.0

    def __reduce__(self) -> Any:
        # Ray Tune copies it. What it has counted is in a separate file, which is newer.
        return type(self), (self._budget, self._scale, self._path)

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Note how long a trial has run."""
        last = self._last.get(trial_id, 0.0)
        # Without a report of its time there is nothing to add.
        seconds = result.get("time_total_s", last)
        # A restarted trial counts from zero.
        self._worked += seconds - last if seconds >= last else seconds
        self._last[trial_id] = seconds
        return False

    def stop_all(self) -> bool:
        """Whether the budget is used up."""
        now = time.monotonic()
        if self._since is None:
            self._since = now
            if self._path.is_file():
                values = json.loads(self._path.read_text())
                self._before = values["seconds"]
                self._worked += values["worked"]
        seconds = self._before + now - self._since
        used_up = _used_up(self._budget, self._scale, seconds, self._worked)
        if used_up or now - self._saved > 1:
            self._saved = now
            write_json(self._path, {"seconds": seconds, "worked": self._worked})
        return used_up


def _used_up(budget: Budget, scale: Scale, seconds: float, worked: float) -> bool:
    """Whether `seconds` of a search, or `worked` seconds of its trials together, use up the
    budget."""
    gpu_hours = worked * scale.workers * scale.gpus_per_worker / 3600
    return bool(
        (budget.hours and seconds / 3600 >= budget.hours)
        or (budget.gpu_hours and gpu_hours >= budget.gpu_hours)
    )


def has_time_left(budget: Budget, scale: Scale, folder: Path) -> bool:
    """Whether the search in this folder may continue, given its hours and GPU-hours so far."""
    path = folder / _SPENT
    values = json.loads(path.read_text()) if path.is_file() else {"seconds": 0.0, "worked": 0.0}
    return not _used_up(budget, scale, values["seconds"], values["worked"])


@dataclass(frozen=True)
class Phase:
    """One experiment.

    Attributes:
        name: the name of its folder in `folder`, the sweep's.
        task: what its trials have in common.
        scale: the resources of a trial.
        concurrent: the most trials at a time.
        budget: when it ends early.
    """

    name: str
    folder: Path
    task: Task
    scale: Scale
    concurrent: int
    budget: Budget

    @property
    def path(self) -> Path:
        """The experiment's own folder."""
        return self.folder / self.name

    def run(
        self,
        params: Sequence[dict[str, Any]] | None,
        suggest: Callable[[list[Begun]], Any],
        scheduler: Callable[[], Any],
        listener: Listener,
    ) -> list[TrialRow]:
        """Run every trial that has not ended yet.

        Args:
            params: params of the trials; None leaves them to the searcher from `suggest`.
            suggest: makes that searcher, given the trials of earlier starts.
            scheduler: makes the scheduler that ends trials early.
            listener: receives the events of the trials.

        Returns:
            The trials of `params`, in their order, then all others that have begun here.
        """
        # Tune's tables, TensorBoard files and tracebacks are not used here: the reason why a trial
        # failed is in its note.
        os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
        os.environ["TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S"] = "0"
        os.environ["TUNE_PRINT_ALL_TRIAL_ERRORS"] = "0"
        # A failed trial ends without a score.
        os.environ["TUNE_DISABLE_STRICT_METRIC_CHECKING"] = "1"
        os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
        logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)
        self.task.failed.mkdir(parents=True, exist_ok=True)
        for path in (path for pattern in _OF_RAY for path in self.path.glob(pattern)):
            path.unlink()
        begun = self._begun()
        numbers: list[int] = []
        if params is None:
            ended, searcher = [each.row for each in begun if each.ended], suggest(begun)
        else:
            given = numbered(params, begun)
            numbers = [each["number"] for each in given]
            known = {each.row.number: each.row for each in begun if each.ended}
            ended = [known[number] for number in numbers if number in known]
            searcher = Points([each for each in given if each["number"] not in known])
        listener.resumed(ended)
        if searcher.left:
            self._fit(searcher, scheduler, listener)
        rows = {each.row.number: each.row for each in self._begun()}
        others = [number for number in sorted(rows) if number not in numbers]
        return [rows[number] for number in [*numbers, *others] if number in rows]

    def _fit(self, searcher: Any, scheduler: Callable[[], Any], listener: Listener) -> None:
        tuner = tune.Tuner(
            self._trainable(),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=scheduler(),
                # The searcher decides when there are no more.
                num_samples=-1,
                max_concurrent_trials=self.concurrent,
                # With several workers, a trial's worker group ends with the trial's actor.
                reuse_actors=self.scale.workers == 1,
                trial_name_creator=_name,
                trial_dirname_creator=_name,
            ),
            run_config=tune.RunConfig(
                name=self.name,
                storage_path=str(self.folder),
                stop=Limit(self.budget, self.scale, self.path / _SPENT),
                failure_config=tune.FailureConfig(max_failures=_LOST_WORKERS),
                callbacks=[Watch()],
                verbose=0,
            ),
        )
        seconds = Seconds(self.path)
        Watch.listener, Watch.seconds = listener, seconds
        Watch.folder, Watch.failed = self.path, self.task.failed
        try:
            in_thread(tuner.fit).result()
        finally:
            Watch.listener = Watch.seconds = None
            seconds.save()

    def _begun(self) -> list[Begun]:
        return begun_trials(self.path, self.task.space)

    def _trainable(self) -> Any:
        if self.scale.workers == 1:
            wanted = resources(1, self.scale.gpus_per_worker)
        else:
            wanted = resources(0.01, 0)
        with_task = tune.with_parameters(run_trial, task=self.task)
        return tune.with_resources(with_task, wanted)


def _name(trial: Any) -> str:
    return str(trial.trial_id)
