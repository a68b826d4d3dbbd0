"""How many trials fit at a time, and when a search has used up its budget."""

import pickle
from pathlib import Path
from typing import Any

import pytest
from made_up import a_space
from small_run import small_config
from small_sweep import faults

from knife.cluster.capacity import capacity_faults
from knife.config.run import Scale
from knife.tune.search import phase
from knife.tune.search.phase import Limit
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
    assert len(capacity_faults(scale, {"CPU": 2, "GPU": 2}, "the cluster")) == 2
    shared = Scale(gpus_per_worker=0.5)
    assert capacity_faults(shared, {"CPU": 2, "GPU": 1}, "the cluster") == []
    assert len(capacity_faults(shared, {"CPU": 2}, "the cluster")) == 1


def test_workers_of_one_group_share_no_gpu(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, "scale.workers=2", "scale.gpus_per_worker=0.5")
    assert fault == (
        "scale.gpus_per_worker: workers of one group cannot share a GPU (NCCL); must be 0 or 1 "
        "for 2 workers, but got 0.5"
    )
    assert faults(tmp_path, "scale.gpus_per_worker=0.5") == []


class Clock:
    """A clock that a test moves."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(phase, "time", clock)
    return clock


def test_the_hours_of_all_starts_are_counted(tmp_path: Path, clock: Clock) -> None:
    limit = Limit(Budget(hours=1), Scale(), tmp_path / "spent.json")
    assert not limit.stop_all()
    clock.now += 3000
    assert not limit.stop_all()
    # The next driver, long after, gets it from Ray Tune's files.
    clock.now += 50_000
    limit = pickle.loads(pickle.dumps(limit))
    assert not limit.stop_all()
    clock.now += 599
    assert not limit.stop_all()
    clock.now += 1
    assert limit.stop_all()


def test_the_gpu_hours_of_all_trials_and_starts_are_counted(tmp_path: Path, clock: Clock) -> None:
    scale = Scale(workers=2, gpus_per_worker=1)
    limit = Limit(Budget(gpu_hours=4), scale, tmp_path / "spent.json")
    assert not limit.stop_all()
    # An hour of two GPUs, told in two reports.
    assert not limit("a", {"time_total_s": 1800})
    assert not limit("a", {"time_total_s": 3600})
    assert not limit("b", {"time_total_s": 900})
    clock.now += 2
    assert not limit.stop_all()
    limit = pickle.loads(pickle.dumps(limit))
    assert not limit.stop_all()
    # Trial b goes on in the next driver, is lost, and starts once more.
    limit("b", {"time_total_s": 1500})
    limit("b", {"time_total_s": 1000})
    assert not limit.stop_all()
    limit("b", {"time_total_s": 1200})
    assert limit.stop_all()


def test_without_gpus_or_limits_nothing_ends(tmp_path: Path, clock: Clock) -> None:
    for number, budget in enumerate((Budget(), Budget(gpu_hours=1))):
        limit = Limit(budget, Scale(), tmp_path / f"{number}.json")
        assert not limit.stop_all()
        limit("a", {"time_total_s": 1e9})
        clock.now += 1e9
        assert not limit.stop_all()
