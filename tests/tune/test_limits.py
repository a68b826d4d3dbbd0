"""How many trials fit at a time, and when a search has used up its budget."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_up import a_space
from small_run import small_config
from small_sweep import errors

from knife.cluster.capacity import capacity_errors
from knife.config.scale import Scale
from knife.tune.search import history
from knife.tune.search.history import TimeSpent
from knife.tune.search.phase import Limit, Watch, has_time_left
from knife.tune.search.resources import slots
from knife.tune.search.settings import Budget


@pytest.mark.parametrize(
    ("scale", "resources", "concurrent", "expected"),
    [
        ({}, {"CPU": 2}, None, 2),
        ({}, {"CPU": 16}, 3, 3),
        ({}, {"CPU": 2}, 3, 2),
        ({"gpus_per_worker": 1}, {"CPU": 16, "GPU": 2}, None, 2),
        ({"gpus_per_worker": 0.25}, {"CPU": 16, "GPU": 1}, None, 4),
        ({"gpus_per_worker": 0.1}, {"CPU": 32, "GPU": 2}, None, 20),
        ({"gpus_per_worker": 0.25}, {"CPU": 2, "GPU": 4}, None, 2),
        ({"workers": 2}, {"CPU": 5}, None, 2),
        ({"workers": 2, "gpus_per_worker": 1}, {"CPU": 64, "GPU": 8}, None, 4),
        ({"workers": 2, "gpus_per_worker": 1}, {"CPU": 64, "GPU": 8}, 1, 1),
    ],
)
def test_as_many_trials_as_fit(
    tmp_path: Path,
    scale: dict[str, Any],
    resources: dict[str, float],
    concurrent: int | None,
    expected: int,
) -> None:
    config = small_config(tmp_path, scale={"launcher": "ray"} | scale)
    sweep = a_space({"x": {"uniform": [0, 1]}}, concurrent=concurrent).sweep
    assert slots(config, resources, sweep) == expected


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


Start = Callable[[], TimeSpent]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(history, "time", clock)
    return clock


@pytest.fixture
def start(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Begins the search, as each driver does, long after the one before."""
    monkeypatch.setattr(Watch, "listener", object())

    def made() -> TimeSpent:
        clock.now += 50_000
        spent = TimeSpent(tmp_path)
        monkeypatch.setattr(Watch, "spent", spent, raising=False)
        return spent

    return made


def test_the_hours_of_all_starts_are_counted(tmp_path: Path, clock: Clock, start: Start) -> None:
    budget = Budget(hours=1)
    limit = pickle.loads(pickle.dumps(Limit(budget, Scale())))
    spent = start()
    assert not limit.stop_all()
    clock.now += 3000
    assert not limit.stop_all()
    spent.save()
    spent = start()
    assert not limit.stop_all()
    clock.now += 599
    assert not limit.stop_all()
    spent.save()
    assert has_time_left(budget, Scale(), tmp_path)
    clock.now += 1
    assert limit.stop_all()
    spent.save()
    assert not has_time_left(budget, Scale(), tmp_path)


def test_the_gpu_hours_of_all_trials_and_starts_are_counted(clock: Clock, start: Start) -> None:
    limit = Limit(Budget(gpu_hours=4), Scale(workers=2, gpus_per_worker=1))
    spent = start()
    # An hour of two GPUs, and a quarter of one that a kill cuts off.
    spent.started("a")
    clock.now += 2700
    spent.started("b")
    clock.now += 900
    spent.ended("a")
    spent.save()
    assert not limit.stop_all()
    # Trial b continues in the next driver, is lost, and restarts.
    spent = start()
    spent.started("b")
    clock.now += 600
    spent.started("b")
    clock.now += 2099
    assert not limit.stop_all()
    clock.now += 1
    assert limit.stop_all()


def test_without_gpus_or_limits_nothing_ends(clock: Clock, start: Start) -> None:
    for budget in (Budget(), Budget(gpu_hours=1)):
        start().started("a")
        clock.now += 1e9
        assert not Limit(budget, Scale()).stop_all()


def test_nothing_ends_by_a_limit_where_no_search_runs() -> None:
    assert not Limit(Budget(hours=1e-9), Scale()).stop_all()
