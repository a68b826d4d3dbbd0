"""Which trials can never fit, and when a search has used up its budget."""

from collections.abc import Callable
from pathlib import Path

import pytest
from small_sweep import errors

from knife.cluster.capacity import capacity_errors
from knife.config.scale import Scale
from knife.tune.search import history
from knife.tune.search.history import TimeSpent
from knife.tune.search.phase import has_time_left, used_up
from knife.tune.search.settings import Budget


def test_a_trial_that_can_never_fit_is_refused() -> None:
    scale = Scale(workers=3, gpus_per_worker=1)
    assert len(capacity_errors(scale, {"CPU": 2, "GPU": 2}, "the cluster")) == 2
    shared = Scale(gpus_per_worker=0.5)
    assert capacity_errors(shared, {"CPU": 2, "GPU": 1}, "the cluster") == []
    assert len(capacity_errors(shared, {"CPU": 2}, "the cluster")) == 1


def test_workers_of_one_group_share_no_gpu(tmp_path: Path) -> None:
    (error,) = errors(tmp_path, "scale.workers=2", "scale.gpus_per_worker=0.5")
    assert error == (
        "scale.gpus_per_worker: workers of one group cannot share a GPU (NCCL); must be 0 or 1 "
        "for 2 workers, but got 0.5"
    )
    assert errors(tmp_path, "scale.gpus_per_worker=0.5") == []


class Clock:
    """A clock that a test moves."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(history, "time", clock)
    return clock


Start = Callable[[], TimeSpent]


@pytest.fixture
def start(tmp_path: Path, clock: Clock) -> Start:
    """Begins the search, as each driver does, long after the one before."""

    def made() -> TimeSpent:
        clock.now += 50_000
        return TimeSpent(tmp_path)

    return made


def test_the_hours_of_all_starts_are_counted(tmp_path: Path, clock: Clock, start: Start) -> None:
    budget = Budget(hours=1)
    spent = start()
    assert not used_up(budget, Scale(), *spent.seconds())
    clock.now += 3000
    assert not used_up(budget, Scale(), *spent.seconds())
    spent.save()
    spent = start()
    assert not used_up(budget, Scale(), *spent.seconds())
    clock.now += 599
    assert not used_up(budget, Scale(), *spent.seconds())
    spent.save()
    assert has_time_left(budget, Scale(), tmp_path)
    clock.now += 1
    assert used_up(budget, Scale(), *spent.seconds())
    spent.save()
    assert not has_time_left(budget, Scale(), tmp_path)


def test_the_gpu_hours_of_all_trials_and_starts_are_counted(clock: Clock, start: Start) -> None:
    budget, scale = Budget(gpu_hours=4), Scale(workers=2, gpus_per_worker=1)
    spent = start()
    # An hour of two GPUs, and a quarter of one that a kill cuts off.
    spent.started("a")
    clock.now += 2700
    spent.started("b")
    clock.now += 900
    spent.ended("a")
    spent.save()
    assert not used_up(budget, scale, *spent.seconds())
    # Trial b continues in the next driver.
    spent = start()
    spent.started("b")
    clock.now += 2699
    assert not used_up(budget, scale, *spent.seconds())
    clock.now += 1
    assert used_up(budget, scale, *spent.seconds())


def test_without_gpus_or_limits_nothing_ends(clock: Clock, start: Start) -> None:
    for budget in (Budget(), Budget(gpu_hours=1)):
        spent = start()
        spent.started("a")
        clock.now += 1e9
        assert not used_up(budget, Scale(), *spent.seconds())
