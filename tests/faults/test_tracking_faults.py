"""A real MLflow server is killed during real runs: nothing is lost or recorded twice.

MLflow's final contents are compared with the journals in the store, which the trainings write with
or without a server.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow_server import MlflowServer
from recorded import journal_points, points, run_tree, timeless
from small_run import SMALL, small_config, wait_for

from knife.config.overrides import merge
from knife.plan.plan import Plan, plan_run
from knife.store.store import Store
from knife.track.curves import Curves
from knife.track.destination import unsent
from knife.train.journal import Position, read_rows
from knife.tune.command import plan_file

pytestmark = pytest.mark.faults

SECONDS = 300


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """Yield one server for all tests; each leaves it running."""
    made = MlflowServer(tmp_path_factory.mktemp("mlflow"))
    made.start()
    made.wait()
    yield made
    made.kill()


@dataclass
class Job:
    """A run that is started as a command on a separate store, recorded by the server.

    Attributes:
        folder: of config and store.
        server: MLflow.
        changes: to `SMALL`.
    """

    folder: Path
    server: MlflowServer
    changes: dict[str, Any]

    def __post_init__(self) -> None:
        self.changes |= {"track": {"uri": self.server.uri, "experiment": self.folder.name}}

    @property
    def store(self) -> Store:
        return Store(self.folder / "store")

    @property
    def plan(self) -> Plan:
        return plan_run(small_config(self.folder / "store", **self.changes))

    def start(self) -> psutil.Popen:
        config = merge(SMALL, self.changes | {"store": str(self.folder / "store")})
        path = self.folder / "run.yaml"
        path.write_text(yaml.safe_dump(config))
        with (self.folder / "stderr").open("ab") as log:
            command = [sys.executable, "-m", "knife", "run", str(path), "--json"]
            return psutil.Popen(command, stdout=subprocess.PIPE, stderr=log)

    def end(self, driver: psutil.Popen) -> None:
        driver.communicate(timeout=SECONDS)
        assert driver.returncode == 0, self.said

    def run(self) -> None:
        self.end(self.start())

    def sync(self) -> "subprocess.CompletedProcess[str]":
        return sync(self.folder / "store")

    @property
    def said(self) -> str:
        return (self.folder / "stderr").read_text()

    def rows(self, kind: str) -> int:
        """Return the number of rows in the journals of a kind of stage."""
        store, count = self.folder / "store", 0
        for path in (
            *store.glob(f"work/{kind}-*/journal.jsonl"),
            *store.glob(f"{kind}/*/journal.jsonl"),
        ):
            # A stage that is done has moved in the meantime.
            with suppress(FileNotFoundError):
                count += len(path.read_bytes().splitlines())
        return count

    def found(self) -> tuple[Run, dict[str, Run]]:
        """Return the only run of its key, and its nested runs."""
        client = MlflowClient(self.server.uri)
        experiment = client.get_experiment_by_name(self.folder.name)
        runs = client.search_runs([experiment.experiment_id])
        (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
        tree = run_tree(self.server.uri, parent.info.run_id)
        assert len(runs) == 1 + len(tree[1])
        return tree

    def check(self) -> int:
        """Check that MLflow has the whole run once; return the number of points compared."""
        plan, uri, client = self.plan, self.server.uri, MlflowClient(self.server.uri)
        parent, nested = self.found()
        assert {run.info.status for run in (parent, *nested.values())} == {"FINISHED"}
        assert parent.data.params["student.batch_size"] == "20"
        assert {file.path for file in client.list_artifacts(parent.info.run_id)} == {
            "config.yaml",
            "report.html",
            "verdict.json",
        }
        assert plan.teacher
        teacher = [p for p in points(uri, nested["teacher"]) if "_rationale" not in p[0]]
        assert teacher == journal_points(self.store, plan.teacher)
        count = len(teacher)
        for member in plan.members:
            run = nested[f"{member.method} seed {member.seed}"]
            found = points(uri, run)
            assert found == journal_points(self.store, member.student, member.evaluate)
            count += len(found)
            assert run.data.params["method"] == member.method
            self._check_files(client, run, member.evaluate.key, member.student.key)
        assert list(unsent(self.folder / "store")) == []
        return count

    def _check_files(self, client: MlflowClient, run: Run, evaluation: str, student: str) -> None:
        store, place = self.store, self.folder / f"fetched-{student}"
        place.mkdir()
        got = client.download_artifacts(run.info.run_id, "predictions.jsonl", str(place))
        expected = store.path("evaluate", evaluation) / "predictions.jsonl"
        assert Path(got).read_bytes() == expected.read_bytes()
        (output,) = run.outputs.model_outputs
        (model,) = client.search_logged_models([run.info.experiment_id])
        assert (model.model_id, model.status) == (output.model_id, "READY")
        weights = list(self.server.folder.rglob(f"{model.model_id}/**/model.safetensors"))
        own = store.path("student", student) / "model" / "model.safetensors"
        assert [path.read_bytes() for path in weights] == [own.read_bytes()]


def sync(store: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "knife", "sync", "--store", str(store)]
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)


@pytest.fixture
def job(server: MlflowServer, tmp_path: Path) -> Job:
    return Job(tmp_path, server, {})


@pytest.fixture
def long_job(server: MlflowServer, tmp_path: Path) -> Job:
    return Job(tmp_path, server, {"student": {"epochs": 400}})


def test_down_at_the_start_and_to_the_end_then_sync_twice(job: Job) -> None:
    job.server.kill()
    began = time.time()
    job.run()
    ended = time.time()
    assert f"MLflow at {job.server.uri} does not answer: " in job.said
    assert job.said.count(f"knife sync --store {job.folder / 'store'} sends it later") == 1
    away = job.sync()
    assert (away.returncode, away.stdout) == (1, "")
    assert f"does not answer (run 'small-{job.plan.key}')" in away.stderr
    job.server.start()
    job.server.wait()
    done = job.sync()
    assert (done.returncode, done.stderr) == (0, "")
    count = job.check()
    print(done.stdout)
    parent, nested = job.found()
    for run in (parent, *nested.values()):
        assert began * 1000 - 1 <= run.info.start_time <= run.info.end_time <= ended * 1000 + 1
    again = job.sync()
    assert again.returncode == 0
    assert again.stdout.startswith("there is nothing to send")
    print(f"{count} points compared")


def test_killed_in_the_middle_and_back_before_the_end(long_job: Job) -> None:
    job = long_job
    driver = job.start()
    wait_for(lambda: job.rows("student") > 30, SECONDS)
    job.server.kill()
    before = job.rows("student")
    job.server.start()
    wait_for(lambda: job.rows("student") > before + 20, SECONDS)
    assert driver.poll() is None, "the training has stopped"
    job.server.wait()
    job.end(driver)
    print(f"{job.check()} points compared")


def test_killed_at_the_end_and_the_next_start_sends(job: Job) -> None:
    driver = job.start()
    wait_for(lambda: job.rows("evaluate"), SECONDS)
    job.server.kill()
    job.end(driver)
    assert "sends it later" in job.said
    assert list(unsent(job.folder / "store"))
    job.server.start()
    job.server.wait()
    job.run()
    print(f"{job.check()} points compared")


def test_the_driver_is_killed_while_it_sends_then_sync_then_the_next_start(long_job: Job) -> None:
    job = long_job
    driver = job.start()
    client = MlflowClient(job.server.uri)

    def sent() -> int:
        experiment = client.get_experiment_by_name(job.folder.name)
        runs = client.search_runs([experiment.experiment_id]) if experiment else []
        return sum(len(run.data.metrics) > 2 for run in runs)

    wait_for(lambda: sent() == 2, SECONDS, pause=0.05)
    driver.kill()
    driver.wait()
    done = job.sync()
    assert done.returncode == 0, done.stderr
    _, nested = job.found()
    member = job.plan.members[0]
    path = job.store.work("student", member.student.key) / "journal.jsonl"
    rows = Curves().rows(read_rows(path, Position())[0])
    expected = sorted({(n, row["step"], v) for row in rows for n, v in row["metrics"].items()})
    assert points(job.server.uri, nested["knife seed 0"]) == expected
    assert list(unsent(job.folder / "store")) == []
    job.run()
    # It resumed from its checkpoint: values that the first start recorded at a step are kept.
    parent, nested = job.found()
    assert parent.info.status == "FINISHED"
    found = points(job.server.uri, nested["knife seed 0"])
    journal = journal_points(job.store, member.student, member.evaluate)
    assert [p[:2] for p in found] == [p[:2] for p in journal]
    assert timeless(found) == timeless(journal)


def test_a_sweep_whose_server_is_down_all_the_time(server: MlflowServer, tmp_path: Path) -> None:
    base = {key: value for key, value in SMALL.items() if key != "scale"}
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base | {"store": str(tmp_path / "store")}))
    sweep = {
        "name": "small",
        "base": "base.yaml",
        "space": {"align.input.weight": {"choice": [1, 30]}},
        "budget": {"trials": 2},
        "final": None,
    }
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(sweep))
    words = [f"track.uri={server.uri}", "track.experiment=sweep"]
    command = [sys.executable, "-m", "knife", "tune", str(path), *words, "--json"]
    server.kill()
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    assert "does not answer" in done.stderr
    server.start()
    server.wait()
    # The sweep is done: its next start only sends what MLflow has missed.
    again = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    assert again.returncode == 0, again.stderr
    assert "warning" not in again.stderr
    client = MlflowClient(server.uri)
    experiment = client.get_experiment_by_name("sweep").experiment_id
    runs = client.search_runs([experiment])
    assert {run.info.status for run in runs} == {"FINISHED"}
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    _, trials = run_tree(server.uri, parent.info.run_id)
    assert set(trials) == {"trial 1", "trial 2"}
    plan = plan_file(path, words)
    store = Store(plan.config.store)
    rows = json.loads((store.root / "sweeps" / "small" / "trials.json").read_text())
    for row in rows:
        trial = trials[f"trial {row['number']}"]
        scores = {str(step): value for name, step, value in points(server.uri, trial)
                  if name == "epoch/best_dev_accuracy"}  # fmt: skip
        assert scores == row["by_epoch"]
        _, seeds = run_tree(server.uri, trial.info.run_id)
        (member,) = plan_run(plan.space.config(row["point"], [0])).members
        (run,) = seeds.values()
        assert points(server.uri, run) == journal_points(store, member.student)
    assert len(runs) == 1 + 2 * len(rows)
    assert "trials.csv" in {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert list(unsent(store.root)) == []
