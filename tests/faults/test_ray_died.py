"""kill -9 of Ray's own processes during each command: it goes on in a new session, or ends with one
line if the cluster is not ours, and the same command resumes."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from command_fixtures import FinishedRun
from job import Job, gone, workers_below
from mlflow import MlflowClient
from mlflow.entities import ViewType
from pair import make
from ray_cluster import Cluster
from small_run import small_config, wait_for
from small_sweep import RATE, write_sweep

from knife.config.run import World
from knife.data.creatures import creatures
from knife.data.jsonl import write_examples
from knife.inference.file import parts_folder
from knife.store.store import Store
from knife.train.context import PlainContext

pytestmark = pytest.mark.faults

SECONDS = 900
# What Ray prints when it dies.
NOISE = ("Raylet is terminated", "state-dump", "Traceback", "core_worker", "marked dead")
# Frequent checkpoints, and enough examples that states and evaluations take some time.
CHANGES: dict[str, Any] = {
    "methods": ["knife"],
    "data": {"world": {"train": 300, "dev": 40, "test": 600}},
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
    # A process that starts a command is briefly two of the same name, which ends after 15 letters.
    found, *_ = (process for process in below if process.name() in (name, name[:15]))
    found.kill()
    return below


def check(driver: psutil.Popen, below: list[psutil.Process], what: str, err: str) -> None:
    """Check that the driver's last line says what happened, and that no process is left."""
    assert driver.returncode == 1, err
    *before, last = err.splitlines()
    assert last.startswith(f"error: {what}"), err
    assert last.endswith("finished work is kept: run the same command again to resume")
    assert [line for line in before if any(word in line for word in NOISE)] == []
    wait_for(lambda: gone(below), SECONDS)


def statuses(uri: str) -> list[str]:
    """Return the statuses of all runs, including nested ones."""
    client = MlflowClient(uri)
    names = [found.experiment_id for found in client.search_experiments()]
    runs = client.search_runs(names, run_view_type=ViewType.ACTIVE_ONLY)
    return sorted(run.info.status for run in runs)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Return the store of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("in-peace")
    with PlainContext() as context:
        make(small_config(folder, **CHANGES), context)
    return Store(folder)


@pytest.mark.parametrize("name", ["raylet", "gcs_server", "ray::Groups"])
def test_a_run_whose_ray_dies_in_each_stage(job: Job, reference: Store, name: str) -> None:
    """It goes on in a new session three times; the fourth loss ends it, and it resumes. Ray Train's
    controllers are in the process called Groups."""
    stages, killed_at = job.stages(), {}
    driver = job.start(launcher="ray")
    below: list[psutil.Process] = []
    for kind in ("teacher", "states", "student", "evaluate"):
        job.wait_for(partial(job.under_way, stages[kind]))
        killed_at[kind] = time.time()
        if kind == "evaluate":
            # It would be done before Ray's loss is noticed.
            for worker in workers_below(driver):
                worker.suspend()
        below += kill(driver, name)
        assert not job.published(stages[kind])
    driver.wait(SECONDS)
    err, database = job.output(".err"), f"sqlite:///{job.store / 'mlflow.db'}"
    check(
        driver, below, "Ray failed (" if name == "ray::Groups" else f"Ray's process {name} (", err
    )
    notes = [line for line in err.splitlines() if line.startswith("note: ")]
    assert [note.rpartition("in a new Ray session ")[2] for note in notes] == [
        f"({number} of 3)" for number in (1, 2, 3)
    ]
    assert "FAILED" in statuses(database)
    job.start(launcher="ray")
    assert {stage["kind"] for stage in job.result()["made"]} == {"evaluate"}
    assert set(statuses(database)) == {"FINISHED"}
    job.same_as(reference)
    for kind in ("teacher", "student"):
        # The journal continues from a checkpoint, and within a minute.
        rows = job.rows(stages[kind])
        assert rows[0]["time"] < killed_at[kind]
        assert min(row["time"] for row in rows if row["time"] > killed_at[kind]) < (
            killed_at[kind] + 60
        )
    # Shards from before the kill were not computed again.
    shards = (job.store / "states" / stages["states"].key).glob("shard-*.safetensors")
    assert min(path.stat().st_mtime for path in shards) < killed_at["states"]


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
        and any(word.endswith(f":{port}") for word in process.info["cmdline"] or ())
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


def test_predictions_whose_ray_dies_go_on_in_a_new_session(
    started: Callable[..., Command], finished_run: FinishedRun, tmp_path: Path
) -> None:
    """Three times; the fourth loss ends them, and the same command resumes."""
    questions, output = tmp_path / "questions.jsonl", tmp_path / "answers.jsonl"
    few = creatures(World(train=300, dev=10, test=10)).train
    many = [replace(e, id=f"{n}-{e.id}") for n in range(60) for e in few]
    write_examples(questions, many)
    words = ("predict", finished_run.student("knife"), questions)
    command = started(*words, "--output", output, "--workers", "2")
    below: list[psutil.Process] = []
    for number, name in enumerate(("raylet", "gcs_server", "raylet", "gcs_server"), 1):
        before = len(answered(output))
        # By the workers of a new session.
        command.wait_for(lambda: len(answered(output)) > before)  # noqa: B023
        assert command.process
        below += kill(command.process, name)
        if number < 4:
            said = f"in a new Ray session ({number} of 3)"
            command.wait_for(lambda: said in command.err)  # noqa: B023
    assert command.process
    command.process.wait(SECONDS)
    check(command.process, below, "Ray's process gcs_server (", command.err)
    assert not output.exists()
    assert command.start().wait(SECONDS) == 0, command.err
    assert "are already answered; resuming …" in command.err
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["id"] for row in rows] == [example.id for example in many]


def answered(output: Path) -> list[Path]:
    """Return the parts that are answered."""
    return list(parts_folder(output).glob("*/part-*"))
