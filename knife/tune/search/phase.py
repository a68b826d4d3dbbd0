"""One phase of a sweep: the trials that have not ended yet, from any start."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from knife.config.scale import Scale
from knife.core.errors import UserError
from knife.data.example import Splits
from knife.launch.executor import Executor
from knife.pipeline.run import publish_data
from knife.pipeline.timeline import Timeline
from knife.plan.events import Event, Failed, Made, Note, Pruned
from knife.plan.plan import plan_run
from knife.plan.schedule import Artifact
from knife.plan.sources import SourceReader
from knife.plan.stage import Stage
from knife.store.store import Store
from knife.tune.search.begun import Begun, begun_trials, numbered
from knife.tune.search.history import History, TimeSpent, read_seconds
from knife.tune.search.schedulers import Judge
from knife.tune.search.searcher import Points, Searcher
from knife.tune.search.settings import Budget
from knife.tune.search.trial import SCORE, Report, Task, Trial, config_of, trial_key
from knife.tune.search.trials import State, TrialRow, first_line

# How often a search looks whether its time is up.
_LOOK_SECONDS = 1.0


class Listener(Protocol):
    """Receives the events of running trials; called from one thread."""

    def resumed(self, rows: list[TrialRow]) -> None:
        """Receive the phase's trials that ended at an earlier start."""

    def started(self, params: dict[str, Any], trial: Trial | None) -> None:
        """A trial of these params starts; None if it cannot be planned."""

    def reported(self, number: int, score: float) -> None:
        """A trial has reported its score so far."""

    def ended(self, number: int, state: State, why: str = "") -> None:
        """A trial has ended or was pruned; if it failed, `why` is the reason."""

    def noted(self, text: str) -> None:
        """Something happened that the user should know."""


def used_up(budget: Budget, scale: Scale, search: float, trials: dict[str, float]) -> bool:
    """Whether the seconds of a search, or those of its trials together, use up the budget."""
    gpu_hours = sum(trials.values()) * scale.workers * scale.gpus_per_worker / 3600
    return bool(
        (budget.hours and search / 3600 >= budget.hours)
        or (budget.gpu_hours and gpu_hours >= budget.gpu_hours)
    )


def has_time_left(budget: Budget, scale: Scale, folder: Path) -> bool:
    """Whether the search in this folder may continue, given its hours and GPU-hours so far."""
    return not used_up(budget, scale, *read_seconds(folder))


@dataclass(frozen=True)
class Workshop:
    """What makes the stages of all phases' trials.

    Attributes:
        executor: makes them; a stage that several trials need is made once.
        data: the splits of the trials so far, by which it estimates times.
        store: where they are kept.
        timeline: notes which slot makes what.
        reader: keeps the data that was read.
    """

    executor: Executor
    data: dict[str, Splits]
    store: Store
    timeline: Timeline
    reader: SourceReader = field(default_factory=SourceReader)


@dataclass(frozen=True)
class Phase:
    """One phase.

    Attributes:
        name: the name of its folder in `folder`, the sweep's.
        task: what its trials have in common.
        scale: the resources of a trial.
        budget: when it ends early.
    """

    name: str
    folder: Path
    task: Task
    scale: Scale
    budget: Budget

    @property
    def path(self) -> Path:
        """The phase's own folder."""
        return self.folder / self.name

    def run(
        self,
        params: Sequence[dict[str, Any]] | None,
        suggest: Callable[[list[Begun]], Searcher],
        judge: Callable[[], Judge | None],
        listener: Listener,
        workshop: Workshop,
    ) -> list[TrialRow]:
        """Run every trial that has not ended yet.

        Args:
            params: params of the trials; None leaves them to the searcher from `suggest`.
            suggest: makes that searcher, given the trials of earlier starts.
            judge: makes the scheduler that ends trials early.
            listener: receives the events of the trials.
            workshop: makes their stages.

        Returns:
            The trials of `params`, in their order, then all others that have begun here.
        """
        begun = begun_trials(self.path, self.task.space)
        numbers: list[int] = []
        searcher: Searcher
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
            _UnderWay(self, searcher, judge(), listener, workshop).run()
        rows = {each.row.number: each.row for each in begun_trials(self.path, self.task.space)}
        others = [number for number in sorted(rows) if number not in numbers]
        return [rows[number] for number in [*numbers, *others] if number in rows]


class _UnderWay:
    """A phase under way: starts trials as there is room, and hears of their stages.

    Args:
        phase: the phase.
        searcher: suggests the trials.
        judge: ends trials early; None ends none.
        listener: receives the events of the trials.
        workshop: makes their stages.
    """

    def __init__(
        self,
        phase: Phase,
        searcher: Searcher,
        judge: Judge | None,
        listener: Listener,
        workshop: Workshop,
    ) -> None:
        self._phase, self._searcher, self._judge = phase, searcher, judge
        self._listener, self._workshop, self._executor = listener, workshop, workshop.executor
        self._history, self._spent = History(phase.path), TimeSpent(phase.path)
        # The searcher's names for trials. It is asked before the trial's own name is known.
        self._names = map(str, itertools.count())
        self._running: dict[str, Trial] = {}
        self._last: dict[str, Report] = {}

    def run(self) -> None:
        """Run trials until there are no more or the budget is used up."""
        self._executor.goes_on = self._goes_on
        try:
            self._fill()
            for events in self._executor.rounds(_LOOK_SECONDS):
                for event in events:
                    self._hear(event)
                self._spent.save(at_most_every=1.0)
                if self._is_over():
                    self._executor.drop()
                    return
                self._fill()
        finally:
            self._spent.save()

    def _is_over(self) -> bool:
        return used_up(self._phase.budget, self._phase.scale, *self._spent.seconds())

    def _fill(self) -> None:
        """Start as many trials as there is room for."""
        while len(self._running) < self._executor.slots and not self._is_over():
            name = next(self._names)
            params = self._searcher.suggest(name)
            if params is None:
                return
            self._start(name, params)

    def _start(self, name: str, params: dict[str, Any]) -> None:
        """Start a trial, which may end at once."""
        workshop, task, key = self._workshop, self._phase.task, trial_key(params)
        self._spent.started(key)
        self._history.started(key, params)
        try:
            plan = plan_run(config_of(params, task.space), workshop.reader, elsewhere=True)
        except UserError as error:
            self._listener.started(params, None)
            self._end(name, params, "failed", str(error))
            return
        workshop.data.update(plan.data)
        publish_data(workshop.store, plan)
        trial = Trial(params, plan, task, workshop.store)
        trial.look()
        self._running[name] = trial
        self._listener.started(params, trial)
        for report in trial.earlier():
            if not self._report(name, trial, report):
                self._end(name, params, "pruned")
                return
        self._need(name, trial)

    def _need(self, name: str, trial: Trial) -> None:
        """Have made what a trial lacks; end it if that is nothing or has failed before."""
        schedule, new = self._executor.schedule, list[Stage]()
        for stage in trial.missing:
            work = schedule.find((stage.kind, stage.key))
            if work and work.error:
                self._fail(name, trial, work.error)
                return
            if work is None or work.state in ("done", "dropped"):
                new.append(stage)
        self._executor.add(new)
        if not trial.waits_for:
            self._made(name, trial, [])

    def _hear(self, event: Event) -> None:
        self._workshop.timeline.add(event)
        match event:
            case Made(work):
                for name, trial in self._waiting_for(work.artifacts):
                    self._made(name, trial, work.artifacts)
            case Failed(work, error):
                for name, trial in self._waiting_for(work.artifacts):
                    self._fail(name, trial, error)
            case Pruned(work):
                # Those for which it was pruned have ended. Others have joined it since then.
                for name, trial in self._waiting_for(work.artifacts):
                    trial.look()
                    self._need(name, trial)
            case Note(text):
                self._listener.noted(text)

    def _waiting_for(self, artifacts: Sequence[Artifact]) -> Iterator[tuple[str, Trial]]:
        """Yield the trials, by the searcher's names, that need one of some artifacts."""
        for name, trial in list(self._running.items()):
            if trial.waits_for.intersection(artifacts):
                yield name, trial

    def _goes_on(self, stage: Stage, epoch: int, metrics: dict[str, float]) -> bool:
        """Report an evaluation to the trials of a student; whether any of them goes on."""
        for name, trial in self._waiting_for([(stage.kind, stage.key)]):
            for report in trial.evaluated(epoch, metrics):
                if not self._report(name, trial, report):
                    self._end(name, trial.params, "pruned")
        return any(self._waiting_for([(stage.kind, stage.key)]))

    def _made(self, name: str, trial: Trial, artifacts: Sequence[Artifact]) -> None:
        for report in trial.made(artifacts):
            self._report(name, trial, report)
            if report["finished"]:
                self._end(name, trial.params, "finished")

    def _report(self, name: str, trial: Trial, report: Report) -> bool:
        """Note a report, and return whether the trial goes on."""
        self._last[name] = report
        goes_on = self._judge is None or self._judge.goes_on(trial.key, report)
        self._history.reported(trial.key, report)
        self._searcher.on_trial_result(name, report | {"training_iteration": report["epoch"]})
        self._listener.reported(trial.number, report[SCORE])
        return goes_on

    def _fail(self, name: str, trial: Trial, error: Exception) -> None:
        # Of a chain of failures the first one is the reason.
        why = str(error.__cause__ or error).strip() or type(error).__name__
        self._end(name, trial.params, "failed", why)

    def _end(self, name: str, params: dict[str, Any], state: State, why: str = "") -> None:
        """End a trial."""
        key, trial, last = trial_key(params), self._running.pop(name, None), self._last.get(name)
        if trial and state == "failed":
            self._forget(trial)
        self._spent.ended(key)
        if state == "pruned":
            self._history.pruned(key)
        if state == "failed":
            self._history.failed(key, why)
        failed = state == "failed"
        self._searcher.on_trial_complete(name, None if failed else last, error=failed)
        self._listener.ended(int(params["number"]), state, first_line(why) if failed else "")

    def _forget(self, trial: Trial) -> None:
        """Drop what nobody else waits for; a training under way ends at its next evaluation."""
        wanted = {artifact for other in self._running.values() for artifact in other.waits_for}
        for artifact in trial.waits_for - wanted:
            work = self._executor.schedule.find(artifact)
            if work and work.state == "waiting" and not wanted.intersection(work.artifacts):
                self._executor.schedule.drop(work)
