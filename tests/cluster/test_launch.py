"""The launcher's own decisions; tests/pipeline/test_faults.py runs it with Ray."""

import os
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ray.train.v2._internal.exceptions import UserExceptionWithTraceback
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError
from small_run import small_config

from knife.cluster.capacity import batch_errors, capacity_errors, place_errors
from knife.config.run import Scale
from knife.core.errors import UserError
from knife.launch import launch as launch_module
from knife.launch.launch import _first_failure, _make, _sweep, _Work, _worker, launch, timeouts
from knife.launch.session import in_thread
from knife.pipeline.run import publish_data
from knife.plan.plan import Plan, plan_run
from knife.plan.stage import TeacherStage
from knife.store.store import Store
from knife.train.context import PlainContext


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
        launch([], tmp_path, config.scale)


@pytest.fixture
def lost_model(tmp_path: Path) -> tuple[Plan, _Work]:
    """Return a plan, as a worker gets it, whose teacher's model has been removed since."""
    plan = plan_run(small_config(tmp_path))
    for key in plan.data:
        publish_data(Store(tmp_path), key, plan)
    stage = plan.stages[0]
    assert isinstance(stage, TeacherStage)
    stage = replace(stage, model=replace(stage.model, folder=tmp_path / "gone"))
    mark = tmp_path / "work" / "mark"
    mark.touch()
    return plan, _Work((stage,), str(tmp_path), plan.config.scale, "group", mark)


def test_a_users_error_in_a_worker_is_noted_and_ends_those_that_follow(
    lost_model: tuple[Plan, _Work], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, work = lost_model
    monkeypatch.setattr("knife.launch.context.RayContext", lambda *_: PlainContext().__enter__())
    with pytest.raises(UserError, match=r"gone has no config.json"):
        _worker({"work": work})
    note = tmp_path / "work" / "group.faults.json"
    assert "gone has no config.json" in note.read_text()
    # Nothing is retried.
    assert _worker({"work": work}) == []
    note.unlink()
    with pytest.raises(UserError):
        _worker({"work": work})


def test_the_first_workers_error_comes_out_of_rays_wrapping() -> None:
    error = UserExceptionWithTraceback(UserError("store: full"), "Traceback …")
    later = UserExceptionWithTraceback(RuntimeError("connection closed by peer"), "Traceback …")
    rank, cause = _first_failure(WorkerGroupError("…", {1: later, 0: error}))
    assert rank == 0
    assert isinstance(cause, UserError)
    assert cause.errors == ["store: full"]
    died: Exception = RuntimeError("the actor died")
    assert _first_failure(WorkerGroupError("…", {1: died})) == (1, died)
    whole = ControllerError(died)
    assert _first_failure(whole) == (None, whole)


def test_groups_are_started_for_as_long_as_stages_get_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, store = plan_run(small_config(tmp_path)), Store(tmp_path)
    groups: list[int] = []

    def fit(*_: Any) -> None:
        """Act like a group that finishes one stage and is lost, and later finishes none."""
        done = len(groups)
        groups.append(done)
        if done < 3:
            store.publish(plan.stages[done].kind, plan.stages[done].key, {})
        raise RuntimeError("worker 0 failed: lost")

    monkeypatch.setattr(launch_module, "_fit", fit)
    with pytest.raises(RuntimeError, match="lost"):
        _make(plan.stages, store, plan.config.scale, 1)
    assert len(groups) == 4


def test_rays_folders_of_killed_drivers_are_removed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for name in ("ray-dead", "ray-alive"):
        (tmp_path / "work" / name / "inner").mkdir(parents=True)
        (tmp_path / "work" / f"{name}.faults.json").write_text("[]")
    (tmp_path / "work" / "student-k").mkdir()
    with store.lock("work", "ray-alive"):
        _sweep(store)
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


def test_every_run_of_a_process_has_its_own_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    start, health = launch_module._START_TIMEOUT, launch_module._HEALTH_TIMEOUT
    monkeypatch.delenv(start, raising=False)
    monkeypatch.delenv(health, raising=False)
    elastic = Scale(workers=2, min_workers=1, hang_seconds=77)
    for scale, seconds in ((Scale(), "600"), (elastic, "30"), (Scale(), "600")):
        with timeouts(scale):
            assert (os.environ[start], os.environ[health]) == (seconds, str(scale.hang_seconds))
        assert not {start, health} & os.environ.keys()
    # What the user has set is kept.
    monkeypatch.setenv(start, "5")
    with timeouts(elastic):
        assert os.environ[start] == "5"
    assert os.environ[start] == "5"
