"""How a phase's trials share stages: with a simulated executor, which decides what happens."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from small_sweep import RATE, WEIGHT, planned

from knife.core.errors import TrainingDivergedError
from knife.launch.executor import Executor
from knife.pipeline.timeline import Timeline
from knife.plan.events import Event, Made, Pruned, failures
from knife.plan.plan import plan_run
from knife.plan.schedule import Schedule, Work
from knife.plan.stage import Stage
from knife.store.store import Store
from knife.tune.search.phase import Phase, Workshop
from knife.tune.search.searcher import Points
from knife.tune.search.settings import Budget
from knife.tune.search.sweep_plan import SweepPlan
from knife.tune.search.trial import Report, Task, Trial
from knife.tune.search.trials import State, TrialRow

GOOD, BAD = {RATE: 3e-3, WEIGHT: 30}, {RATE: 5e-3, WEIGHT: 30}


@dataclass
class Simulated:
    """An executor of which a test says what becomes of each work."""

    store: Store
    happens: Callable[["Simulated", Work], list[Event]]
    slots: int = 2
    goes_on: Any = None
    schedule: Schedule = field(default_factory=lambda: Schedule(lambda _: 1.0))
    taken: list[str] = field(default_factory=list)

    def add(self, stages: list[Stage]) -> None:
        self.schedule.add(stages)

    def rounds(self, _: float) -> Iterator[list[Event]]:
        while work := self.schedule.take():
            self.taken.append(work.stages[0].kind)
            yield self.happens(self, work)

    def makes(self, work: Work, accuracy: float = 0.5) -> list[Event]:
        for stage in work.stages:
            folder = self.store.work(stage.kind, stage.key)
            trained = {"dev_accuracy": accuracy, "dev_loss": 1.0}
            (folder / "trained.json").write_text(json.dumps(trained))
            self.store.publish(stage.kind, stage.key, stage.depends)
        self.schedule.done(work)
        return [Made(work, 0)]

    def evaluates(self, work: Work, epoch: int, accuracy: float) -> bool:
        metrics = {"dev_accuracy": accuracy, "dev_loss": 1.0}
        return bool(self.goes_on(work.stages[0], epoch, metrics))

    def prunes(self, work: Work) -> list[Event]:
        self.schedule.drop(work)
        return [Pruned(work, 0)]


@dataclass
class Heard:
    """A listener that keeps what it hears."""

    ends: list[tuple[int, State, str]] = field(default_factory=list)

    def resumed(self, rows: list[TrialRow]) -> None: ...
    def started(self, params: dict[str, Any], trial: Trial | None) -> None: ...
    def reported(self, number: int, score: float) -> None: ...
    def noted(self, text: str) -> None: ...
    def ended(self, number: int, state: State, why: str = "") -> None:
        self.ends.append((number, state, why))


class Threshold:
    """Ends trials below a score."""

    def goes_on(self, key: str, report: Report) -> bool:  # noqa: ARG002
        return bool(report["score"] >= 0.5)


@pytest.fixture
def sweep(tmp_path: Path) -> SweepPlan:
    return planned(tmp_path, set={"student.epochs": 3})


def run(
    sweep: SweepPlan, points: list[dict[str, Any]], executor: Simulated, **values: Any
) -> tuple[list[TrialRow], Heard]:
    heard = Heard()
    task = Task(sweep.space, test=False, ceiling=False)
    phase = Phase("search", executor.store.root, task, sweep.config.scale, Budget())
    params = [{"point": point} | values for point in points]
    workshop = Workshop(cast(Executor, executor), {}, executor.store, Timeline(executor.store.root))
    rows = phase.run(params, lambda _: Points([]), Threshold, heard, workshop)
    return rows, heard


def test_trials_of_one_point_are_one_training(sweep: SweepPlan) -> None:
    executor = Simulated(Store(sweep.config.store), Simulated.makes)
    rows, _ = run(sweep, [GOOD, GOOD | {WEIGHT: 30.0}, BAD], executor)
    assert [row.state for row in rows] == ["finished"] * 3
    assert executor.taken == ["teacher", "states", "student", "student"]
    assert rows[0].students == rows[1].students != rows[2].students


def test_what_failed_for_one_trial_fails_for_all_that_need_it(sweep: SweepPlan) -> None:
    error = TrainingDivergedError("teacher: the loss is NaN")

    def happens(simulated: Simulated, work: Work) -> list[Event]:
        assert work.stages[0].kind == "teacher"
        return list(failures(simulated.schedule, work, error))

    executor = Simulated(Store(sweep.config.store), happens)
    rows, heard = run(sweep, [GOOD, BAD, GOOD | {WEIGHT: 1}], executor)
    # The third starts when the teacher has failed already. It was tried once.
    assert len(executor.taken) == 1
    assert heard.ends == [(n, "failed", "teacher: the loss is NaN") for n in (1, 2, 3)]
    assert [row.error for row in rows] == ["teacher: the loss is NaN"] * 3
    again, _ = run(sweep, [GOOD, BAD], executor)
    assert again == rows
    assert len(executor.taken) == 1


def test_a_judged_trial_ends_at_once(sweep: SweepPlan) -> None:
    def happens(simulated: Simulated, work: Work) -> list[Event]:
        if work.stages[0].kind == "student":
            bad = work.stages[0].key == bad_key
            for epoch in (1, 2):
                if not simulated.evaluates(work, epoch, 0.4 if bad else 0.6):
                    assert (bad, epoch) == (True, 1)
                    return simulated.prunes(work)
        return simulated.makes(work, 0.7)

    bad_key = plan_run(sweep.space.config(BAD), elsewhere=True).members[0].student.key
    executor = Simulated(Store(sweep.config.store), happens)
    rows, heard = run(sweep, [GOOD, BAD], executor)
    assert sorted(heard.ends) == [(1, "finished", ""), (2, "pruned", "")]
    assert (rows[0].by_epoch, rows[0].score) == ({1: 0.6, 2: 0.6, 3: 0.7}, 0.7)
    assert (rows[1].by_epoch, rows[1].score) == ({1: 0.4}, 0.4)


def test_who_joins_a_training_that_is_being_pruned_has_it_made(
    sweep: SweepPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trial is pruned; before its worker has ended, another of the same point starts."""
    again = GOOD | {WEIGHT: 30.0}
    tries = 0

    def happens(simulated: Simulated, work: Work) -> list[Event]:
        nonlocal tries
        if work.stages[0].kind == "student":
            tries += 1
            if tries == 1:
                assert not simulated.evaluates(work, 1, 0.4)
                late.append(work)
                return []
        return simulated.makes(work)

    late: list[Work] = []
    executor = Simulated(Store(sweep.config.store), happens, slots=1)

    def rounds(self: Simulated, _: float) -> Iterator[list[Event]]:
        while (work := self.schedule.take()) or late:
            yield self.happens(self, work) if work else self.prunes(late.pop())

    monkeypatch.setattr(Simulated, "rounds", rounds)
    rows, _ = run(sweep, [GOOD, again], executor)
    assert [row.state for row in rows] == ["pruned", "finished"]
    assert tries == 2


def test_seeds_are_reported_in_their_order(sweep: SweepPlan) -> None:
    """However they end: the first score is that of the first seed."""
    taken: list[Work] = []

    def happens(simulated: Simulated, work: Work) -> list[Event]:
        if work.stages[0].kind != "student":
            return simulated.makes(work)
        taken.append(work)
        if len(taken) < 3:
            return []
        return [e for n, w in enumerate(reversed(taken)) for e in simulated.makes(w, n / 10)]

    executor = Simulated(Store(sweep.config.store), happens)
    (row,), _ = run(sweep, [GOOD], executor, seeds=[5, 3, 4])
    assert row.scores == {5: 0.2, 3: 0.1, 4: 0.0}
    assert row.by_epoch == {1: 0.2, 2: pytest.approx(0.15), 3: pytest.approx(0.1)}
