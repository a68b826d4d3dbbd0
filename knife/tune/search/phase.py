"""One experiment of Ray Tune: the trials that have not ended yet, from any start."""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from ray import tune
from ray.tune import Callback, Stopper

from knife.cluster.capacity import resources
from knife.config.scale import Scale
from knife.launch.session import in_thread
from knife.tune.search.begun import Begun, begun_trials, numbered
from knife.tune.search.history import History, TimeSpent, read_seconds
from knife.tune.search.searcher import Points
from knife.tune.search.settings import Budget
from knife.tune.search.trial import SCORE, Task, failure_note, run_trial, trial_key
from knife.tune.search.trials import State, TrialRow, first_line

# How often a trial restarts after its worker was lost.
_LOST_WORKERS = 3
_LOST = (
    f"its worker process was killed {_LOST_WORKERS + 1} times, often for lack of memory: lower "
    "concurrent or student.batch_size"
)
# What a report has besides Ray Tune's own values.
_REPORTED = (SCORE, "epoch", "finished", "scores", "students", "tests", "timestamp")
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
    """Notes events and passes them to the listener. Class attributes, since Ray Tune saves
    callbacks to files. There is a listener while an experiment runs."""

    listener: ClassVar[Listener | None] = None
    history: ClassVar[History]
    spent: ClassVar[TimeSpent]
    #: The folder with the notes of failed trials.
    failed: ClassVar[Path]

    def on_step_end(self, iteration: int, trials: list[Any], **_: Any) -> None:  # noqa: ARG002
        """Save how long the trials have run."""
        if self.listener:
            self.spent.save(at_most_every=1.0)

    def on_trial_start(self, *, trial: Any, **_: Any) -> None:
        """Report a start."""
        if self.listener:
            self.spent.started(trial_key(trial.config))
            self.history.started(trial_key(trial.config), trial.config)
            self.listener.started(trial.config["number"], trial.config)

    def on_trial_result(self, *, trial: Any, result: dict[str, Any], **_: Any) -> None:
        """Pass a report on. Schedulers have judged it before this."""
        if self.listener and SCORE in result:
            report = {name: result[name] for name in _REPORTED}
            self.history.reported(trial_key(trial.config), report)
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
        if not self.listener:
            return
        self.spent.ended(trial_key(trial.config))
        if state == "pruned":
            self.history.pruned(trial_key(trial.config))
        note = failure_note(self.failed, trial.config)
        why = first_line(note.read_text()) if state == "failed" else ""
        self.listener.ended(trial.config["number"], state, why)


class Limit(Stopper):  # type: ignore[misc]
    """Ends a search when its hours or GPU-hours are used up, counted across restarts."""

    def __init__(self, budget: Budget, scale: Scale) -> None:
        self._budget = budget
        self._scale = scale

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:  # noqa: ARG002
        """Return False: trials end together."""
        return False

    def stop_all(self) -> bool:
        """Whether the budget is used up."""
        return bool(Watch.listener) and _used_up(self._budget, self._scale, *Watch.spent.seconds())


def _used_up(budget: Budget, scale: Scale, search: float, trials: dict[str, float]) -> bool:
    """Whether the seconds of a search, or those of its trials together, use up the budget."""
    gpu_hours = sum(trials.values()) * scale.workers * scale.gpus_per_worker / 3600
    return bool(
        (budget.hours and search / 3600 >= budget.hours)
        or (budget.gpu_hours and gpu_hours >= budget.gpu_hours)
    )


def has_time_left(budget: Budget, scale: Scale, folder: Path) -> bool:
    """Whether the search in this folder may continue, given its hours and GPU-hours so far."""
    return not _used_up(budget, scale, *read_seconds(folder))


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
        begun = begun_trials(self.path, self.task.space)
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
        rows = {each.row.number: each.row for each in begun_trials(self.path, self.task.space)}
        others = [number for number in sorted(rows) if number not in numbers]
        return [rows[number] for number in [*numbers, *others] if number in rows]

    def _fit(self, searcher: Any, scheduler: Callable[[], Any], listener: Listener) -> None:
        alone = self.scale.workers == 1
        wanted = resources(1, self.scale.gpus_per_worker) if alone else resources(0.01, 0)
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(run_trial, task=self.task), wanted),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=scheduler(),
                # The searcher decides when there are no more.
                num_samples=-1,
                max_concurrent_trials=self.concurrent,
                # With several workers, a trial's worker group ends with the trial's actor.
                reuse_actors=alone,
                trial_name_creator=_name,
                trial_dirname_creator=_name,
            ),
            run_config=tune.RunConfig(
                name=self.name,
                storage_path=str(self.folder),
                stop=Limit(self.budget, self.scale),
                failure_config=tune.FailureConfig(max_failures=_LOST_WORKERS),
                callbacks=[Watch()],
                verbose=0,
            ),
        )
        Watch.history, Watch.spent = History(self.path), TimeSpent(self.path)
        Watch.failed, Watch.listener = self.task.failed, listener
        try:
            in_thread(tuner.fit).result()
        finally:
            Watch.listener = None
            Watch.spent.save()


def _name(trial: Any) -> str:
    return str(trial.trial_id)
