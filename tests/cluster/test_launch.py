"""The launcher's own decisions; tests/cluster/test_executor.py has them with Ray."""

import signal
import threading
from pathlib import Path

import pytest
from ray.train.v2._internal.exceptions import UserExceptionWithTraceback
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError
from small_run import small_config

from knife.cluster.capacity import (
    Host,
    batch_errors,
    capacity_errors,
    cpus_of_a_worker,
    groups_that_fit,
    parallel_errors,
    place_errors,
)
from knife.config.run import parse
from knife.config.scale import Scale
from knife.core.errors import UserError
from knife.launch import slot
from knife.launch.executor import Executor
from knife.launch.session import in_thread
from knife.launch.slot import first_failure, sweep, timeouts
from knife.plan.pace import Pace
from knife.store.store import Store


def test_what_a_place_can_never_give_is_refused() -> None:
    scale = Scale(workers=8, gpus_per_worker=1)
    assert capacity_errors(scale, {"CPU": 8, "GPU": 8}, "the cluster") == []
    assert capacity_errors(scale, {"CPU": 4}, "the cluster") == [
        "scale.workers: 8 workers need a CPU each, but the cluster has 4; set fewer",
        "scale.gpus_per_worker: 8 x 1 GPUs are requested, but the cluster has 0; set fewer "
        "workers, or scale.gpus_per_worker=0",
    ]
    elastic = Scale(workers=8, min_workers=5)
    assert capacity_errors(elastic, {"CPU": 5}, "the cluster") == []
    assert capacity_errors(elastic, {"CPU": 4}, "the cluster") == [
        "scale.min_workers: 5 workers need a CPU each, but the cluster has 4; set fewer"
    ]


def test_a_cluster_is_judged_when_it_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(tmp_path, scale={"launcher": "ray", "workers": 1000})
    monkeypatch.setenv("RAY_ADDRESS", "example:1")
    assert place_errors(config) == []
    assert [error.split(":")[0] for error in batch_errors(config)] == [
        "teacher.batch_size",
        "student.batch_size",
    ]
    monkeypatch.delenv("RAY_ADDRESS")
    assert any("this machine has" in error for error in place_errors(config))
    with pytest.raises(UserError, match=r"^scale.workers: 1000 workers need a CPU each, but this"):
        Executor(tmp_path, config.scale, Pace({}), width=1).__enter__()


def test_as_many_groups_as_hosts_have_room_for() -> None:
    hosts = [Host(cpus=8, gpus=2, memory=16e9), Host(cpus=4, gpus=4, memory=64e9)]
    assert groups_that_fit(Scale(), hosts, 0) == 12
    assert groups_that_fit(Scale(workers=5), hosts, 0) == 2
    # The first host has memory for three workers, the second has four CPUs.
    assert groups_that_fit(Scale(), hosts, 5e9) == 7
    assert groups_that_fit(Scale(gpus_per_worker=1), hosts, 0) == 6
    assert groups_that_fit(Scale(gpus_per_worker=0.5), hosts, 0) == 8
    assert groups_that_fit(Scale(gpus_per_worker=0.75), hosts, 0) == 6
    # Whether a single one fits is judged elsewhere.
    assert groups_that_fit(Scale(), hosts, 1e12) == 1


def test_workers_share_the_cpus_of_their_hosts() -> None:
    hosts = [Host(3, 0, 0), Host(3, 0, 0), Host(3, 0, 0)]
    assert cpus_of_a_worker(Scale(), hosts, 1) == 3
    assert cpus_of_a_worker(Scale(), hosts, 3) == 3
    # With two CPUs each, only three would fit.
    assert cpus_of_a_worker(Scale(), hosts, 4) == 1
    assert cpus_of_a_worker(Scale(workers=2), [Host(16, 0, 0)], 4) == 2


def test_more_at_a_time_than_there_is_room_for_is_refused() -> None:
    assert parallel_errors(Scale(parallel=3), 3, "this machine") == []
    assert parallel_errors(Scale(), 1, "this machine") == []
    assert parallel_errors(Scale(parallel=8, workers=2), 3, "the cluster") == [
        "scale.parallel: 8 stages at a time, of 2 workers each, are requested, but the cluster has "
        "room for 3 by CPUs, GPUs and memory; set 3 or fewer, or auto"
    ]
    for value in (0, -1, "many", True, 1.5):
        with pytest.raises(UserError, match=r"scale\.parallel: must be auto or a number from 1"):
            parse({"scale": {"parallel": value}})


def test_the_first_workers_error_comes_out_of_rays_wrapping() -> None:
    error = UserExceptionWithTraceback(UserError("store: full"), "Traceback …")
    later = UserExceptionWithTraceback(RuntimeError("connection closed by peer"), "Traceback …")
    rank, cause = first_failure(WorkerGroupError("…", {1: later, 0: error}))
    assert rank == 0
    assert isinstance(cause, UserError)
    assert cause.errors == ["store: full"]
    died: Exception = RuntimeError("the actor died")
    assert first_failure(WorkerGroupError("…", {1: died})) == (1, died)
    whole = ControllerError(died)
    assert first_failure(whole) == (None, whole)


def test_rays_folders_of_killed_drivers_are_removed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for name in ("ray-dead", "ray-alive"):
        (tmp_path / "work" / name / "inner").mkdir(parents=True)
        (tmp_path / "work" / f"{name}.faults.json").write_text("[]")
    (tmp_path / "work" / "student-k").mkdir()
    with store.lock("work", "ray-alive"):
        sweep(store)
    left = {path.name for path in (tmp_path / "work").iterdir()}
    assert left == {"ray-alive", "ray-alive.faults.json", "student-k"}


def test_errors_and_ctrl_c_come_through_the_thread() -> None:
    def fail() -> None:
        raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        in_thread(fail).result()
    end = threading.Event()
    main = threading.main_thread().ident
    assert main

    def wait() -> None:
        """Wait: whenever the signal arrives, it arrives in here."""
        threading.Timer(0.2, signal.pthread_kill, (main, signal.SIGINT)).start()
        in_thread(end.wait).result()

    with pytest.raises(KeyboardInterrupt):
        wait()
    end.set()


def test_every_run_has_its_own_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    start, health = slot._START_TIMEOUT, slot._HEALTH_TIMEOUT
    monkeypatch.delenv(start, raising=False)
    elastic = Scale(workers=2, min_workers=1, hang_seconds=77)
    assert timeouts(Scale()) == {start: "600", health: "600"}
    assert timeouts(elastic) == {start: "30", health: "77.0"}
    # What the user has set is kept.
    monkeypatch.setenv(start, "5")
    assert timeouts(elastic)[start] == "5"
