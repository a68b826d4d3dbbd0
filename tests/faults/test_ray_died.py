"""kill -9 of Ray's own processes during each command: runs and sweeps go on in a new session, the
others end with one line, and the same command resumes."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from command_fixtures import FinishedRun
from job import Job, gone, workers_below
from mlflow import MlflowClient
from mlflow.entities import ViewType
from ray_cluster import Cluster
from small_run import wait_for
from small_sweep import RATE, write_sweep

from knife.config.run import World
from knife.data.creatures import creatures
from knife.data.jsonl import write_examples
from knife.inference.file import parts_folder

pytestmark = pytest.mark.faults

SECONDS = 900
# What Ray prints when it dies.
NOISE = ("Raylet is terminated", "state-dump", "Traceback", "core_worker", "marked dead")
CHANGES: dict[str, Any] = {
    "methods": ["knife"],
    "data": {"world": {"train": 300, "dev": 40, "test": 40}},
    "teacher": {"epochs": 10},
    "scale": {"checkpoint_steps": 5},
}


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Job]:
    for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    job = Job(tmp_path, CHANGES)
    yield job
    job.kill()


def kill(driver: psutil.Process, name: str) -> list[psutil.Process]:
    """Kill one of Ray's own processes below a driver; return all that were below it."""
    below = driver.children(recursive=True)
    (found,) = (process for process in below if process.name() == name)
    found.kill()
    return below


def check(driver: psutil.Popen, below: list[psutil.Process], name: str, err: str) -> None:
    """Check that the driver's last line reports it, and that no process is left."""
    assert driver.returncode == 1, err
    *before, last = err.splitlines()
    assert last.startswith(f"error: Ray's process {name} (")
    assert last.endswith("finished work is kept: run the same command again to resume")
    assert [line for line in before if any(word in line for word in NOISE)] == []
    wait_for(lambda: gone(below), SECONDS)


def statuses(uri: str) -> list[str]:
    """Return the statuses of all runs, including nested ones."""
    client = MlflowClient(uri)
    names = [found.experiment_id for found in client.search_experiments()]
    runs = client.search_runs(names, run_view_type=ViewType.ACTIVE_ONLY)
    return sorted(run.info.status for run in runs)


@pytest.mark.parametrize("name", ["raylet", "gcs_server", "ray::Groups"])
def test_a_run_whose_ray_dies_goes_on_in_a_new_session(job: Job, name: str) -> None:
    driver = job.start(launcher="ray")
    teacher = job.stages()["teacher"]
    job.wait_for(lambda: job.under_way(teacher))
    below = driver.children(recursive=True)
    (found,) = (each for each in below if each.name().startswith(name[:15]))
    killed = time.time()
    found.kill()
    result = job.result()
    # The journal continues from a checkpoint, and within a minute.
    rows = job.rows(teacher)
    steps = [row["step"] for row in rows]
    assert steps == sorted(steps)
    assert min(row["time"] for row in rows if row["time"] > killed) < killed + 60
    assert {stage["kind"] for stage in result["made"]} >= {"teacher", "student"}
    err = job.output(".err")
    (note,) = (line for line in err.splitlines() if line.startswith("note: "))
    assert "in a new Ray session (1 of 3)" in note
    assert not any(word in err for word in NOISE), err
    wait_for(lambda: gone(below), SECONDS)
    assert set(statuses(f"sqlite:///{job.store / 'mlflow.db'}")) == {"FINISHED"}


def test_a_run_whose_ray_dies_again_and_again_ends_and_resumes(job: Job) -> None:
    driver = job.start(launcher="ray")
    below: list[psutil.Process] = []

    def another() -> bool:
        return any(process not in below for process in raylets(driver)) and bool(
            workers_below(driver)
        )

    for _ in range(4):
        job.wait_for(another)
        below += kill(driver, "raylet")
    driver.wait(SECONDS)
    check(driver, below, "raylet", job.output(".err"))
    assert job.output(".err").count("in a new Ray session") == 3
    assert "FAILED" in statuses(f"sqlite:///{job.store / 'mlflow.db'}")
    job.start(launcher="ray")
    job.result()
    assert set(statuses(f"sqlite:///{job.store / 'mlflow.db'}")) == {"FINISHED"}


def raylets(driver: psutil.Process) -> list[psutil.Process]:
    """Return the raylets below a driver."""
    return [process for process in driver.children() if process.name() == "raylet"]


@dataclass
class Command:
    """A command that is started repeatedly; its output goes to a file."""

    words: list[str]
    folder: Path
    process: psutil.Popen | None = None
    environment: dict[str, str] = field(
        default_factory=lambda: {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    )

    def start(self) -> psutil.Popen:
        with (self.folder / "out").open("w") as out, (self.folder / "err").open("w") as err:
            command = [sys.executable, "-m", "knife", *self.words]
            self.process = psutil.Popen(command, stdout=out, stderr=err, env=self.environment)
        return self.process

    @property
    def err(self) -> str:
        return (self.folder / "err").read_text()

    def wait_for(self, condition: Callable[[], object]) -> None:
        def reached() -> bool:
            assert self.process
            assert self.process.poll() is None, self.err
            return bool(condition())

        wait_for(reached, SECONDS, pause=0.01)


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., Command]]:
    """Return a function that starts a command; its processes are killed after the test."""
    found: list[Command] = []

    def start(*words: object) -> Command:
        found.append(Command(list(map(str, words)), tmp_path))
        found[-1].start()
        return found[-1]

    yield start
    for command in found:
        if command.process and command.process.poll() is None:
            for process in [*command.process.children(recursive=True), command.process]:
                process.kill()


def test_a_sweep_whose_ray_dies_goes_on_in_a_new_session(
    started: Callable[..., Command], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    path = write_sweep(
        tmp_path,
        space={RATE: {"loguniform": [1e-4, 1e-2]}},
        budget={"trials": 2},
        final=None,
        set={"student.epochs": 8, "data.world.train": 100, "scale.checkpoint_steps": 5},
    )
    command = started("tune", path, "--json")
    store = tmp_path / "store"
    command.wait_for(lambda: any(store.glob("work/student-*/checkpoints/*/place.json")))
    assert command.process
    below = kill(command.process, "raylet")
    assert command.process.wait(SECONDS) == 0, command.err
    (note,) = (line for line in command.err.splitlines() if line.startswith("note: "))
    assert "in a new Ray session (1 of 3)" in note
    assert not any(word in command.err for word in NOISE), command.err
    wait_for(lambda: gone(below), SECONDS)
    result = json.loads((tmp_path / "out").read_text())
    assert result["states"] == {"finished": 2}
    assert set(statuses(f"sqlite:///{store / 'mlflow.db'}")) == {"FINISHED"}
    # The teacher was made before; a student has resumed from its checkpoint.
    students = [json.loads(path.read_text()) for path in store.glob("student/*/trained.json")]
    assert any(student["resumed"] for student in students)


def test_a_cluster_that_is_lost_ends_a_run_in_one_line(
    job: Job, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its processes are killed on the driver's host, as an administrator or a reboot may do."""
    port = cluster.head.rpartition(":")[2]
    monkeypatch.setenv("RAY_ADDRESS", cluster.head)
    # As in the cluster's own environment.
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    driver = job.start(launcher="ray")
    teacher = job.stages()["teacher"]
    job.wait_for(lambda: job.under_way(teacher))
    (raylet,) = (
        process
        for process in psutil.process_iter(["name", "cmdline"])
        if process.info["name"] == "raylet"
        and any(word.endswith(f":{port}") for word in process.info["cmdline"])
    )
    raylet.kill()
    assert driver.wait(SECONDS) == 1
    err = job.output(".err")
    *before, last = err.splitlines()
    assert last.startswith(f"error: the Ray cluster at {cluster.head} was lost")
    assert last.endswith("finished work is kept: run the same command again to resume")
    assert [line for line in before if any(word in line for word in NOISE)] == []
    assert "FAILED" in statuses(f"sqlite:///{job.store / 'mlflow.db'}")
    # The same command resumes, here without a cluster.
    monkeypatch.delenv("RAY_ADDRESS")
    job.start(launcher="ray")
    result = job.result()
    assert {stage["kind"] for stage in result["made"]} >= {"teacher", "student"}


def test_predictions_whose_ray_dies_say_so_and_resume(
    started: Callable[..., Command], finished_run: FinishedRun, tmp_path: Path
) -> None:
    questions, output = tmp_path / "questions.jsonl", tmp_path / "answers.jsonl"
    few = creatures(World(train=300, dev=10, test=10)).train
    many = [replace(e, id=f"{n}-{e.id}") for n in range(60) for e in few]
    write_examples(questions, many)
    words = ("predict", finished_run.student("knife"), questions)
    command = started(*words, "--output", output, "--workers", "2")
    command.wait_for(lambda: any(parts_folder(output).glob("*/part-*")))
    assert command.process
    below = kill(command.process, "raylet")
    command.process.wait(SECONDS)
    check(command.process, below, "raylet", command.err)
    assert not output.exists()
    assert command.start().wait(SECONDS) == 0, command.err
    assert "are already answered; resuming …" in command.err
    assert len(output.read_text().splitlines()) == len(many)
