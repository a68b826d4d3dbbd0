"""Runs, experiments and databases that somebody deletes while they are written to: MLflow has all
of it in the end, or what it lacks is said and kept."""

import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_fixtures import Command
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from small_run import wait_for

from knife.cli.sync import sync
from knife.store.store import Store
from knife.track.outbox import left
from knife.track.remote import PARENT
from knife.track.resend import resend
from knife.track.run import TrackedRun
from knife.track.tracker import Tracker
from knife.train.follow import Follower
from knife.train.journal import Row

STAGE = ("student", "key-of-student")
SEEDS = (0, 1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables, nothing else."""
    store = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        Tracker(None, store, "exp").close()
    return store / "mlflow.db"


@pytest.fixture
def store(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    Store(tmp_path)
    shutil.copy(made, tmp_path / "mlflow.db")
    return tmp_path


@pytest.fixture
def tracker(store: Path) -> Iterator[Tracker]:
    with Tracker(None, store, "exp") as opened:
        yield opened


def journal(store: Path, first: int, last: int) -> None:
    """Rows that a stage at work appends."""
    path = store / "work" / "-".join(STAGE) / "journal.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = [
        {"step": s, "epoch": s / 10, "time": 1e9 + s, "metrics": {"loss": 1 / s}}
        for s in range(first, last + 1)
    ]
    with path.open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def first_half(tracker: Tracker, store: Path) -> tuple[TrackedRun, list[TrackedRun]]:
    """A run with two nested ones, one of which has ended; all of it is sent."""
    parent = tracker.open_run("demo", "key-of-run", {"name": "demo"}, {"knife.what": "a run"})
    children = [parent.child(f"seed {s}", f"key-{s}", {"seed": s}, {}) for s in SEEDS]
    parent.log_summary({"before": 1.0})
    journal(store, 1, 10)
    with Follower(store) as follower:
        follower.follow(*STAGE, children[0])
        follower.poll()
    (store / "early.txt").write_text("early")
    children[0].artifact(store / "early.txt")
    children[1].log_summary({"dev_accuracy": 0.5})
    children[1].finish("FINISHED")
    assert tracker.flush()
    return parent, children


def second_half(store: Path, parent: TrackedRun, child: TrackedRun) -> None:
    """The rest of its life."""
    journal(store, 11, 20)
    with Follower(store) as follower:
        follower.follow(*STAGE, child)
        follower.poll()
    parent.log_summary({"after": 2.0})
    child.finish("FINISHED")
    parent.finish("FINISHED")


def check_whole(store: Path) -> dict[str, Run]:
    """Three runs, each once, with all that was ever told of them."""
    client = MlflowClient(f"sqlite:///{store / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("exp")
    assert experiment
    runs = client.search_runs([experiment.experiment_id])
    found = {str(run.info.run_name): run for run in runs}
    assert sorted(found) == ["demo", "seed 0", "seed 1"]
    assert len(runs) == 3
    statuses = {name: run.info.status for name, run in found.items()}
    assert set(statuses.values()) == {"FINISHED"}, statuses
    parent, first, second = (found[name] for name in sorted(found))
    assert parent.data.metrics == {"before": 1.0, "after": 2.0}
    assert parent.data.tags["knife.what"] == "a run"
    assert parent.data.params["name"] == "demo"
    assert first.data.params == {"seed": "0"}
    steps = [m.step for m in client.get_metric_history(first.info.run_id, "train/loss")]
    assert steps == list(range(1, 21))
    assert [f.path for f in client.list_artifacts(first.info.run_id)] == ["early.txt"]
    assert second.data.metrics == {"dev_accuracy": 0.5}
    assert second.data.params == {"seed": "1"}
    assert {first.data.tags[PARENT], second.data.tags[PARENT]} == {parent.info.run_id}
    return found


def purge(store: Path, *run_ids: str) -> None:
    """What `mlflow gc` does to runs."""
    database = SqlAlchemyStore(f"sqlite:///{store / 'mlflow.db'}", str(store / "mlartifacts"))
    for run_id in run_ids:
        database._hard_delete_run(run_id)


WHICH = {"one child": [1], "a child that had ended": [2], "the parent": [0], "all": [0, 1, 2]}


@pytest.mark.parametrize("which", WHICH.values(), ids=WHICH)
@pytest.mark.parametrize("for_good", [False, True], ids=["marked", "for good"])
def test_runs_deleted_while_they_are_written_are_whole_in_the_end(
    tracker: Tracker,
    store: Path,
    which: list[int],
    for_good: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    parent, children = first_half(tracker, store)
    ids = [str(run.run_id) for run in (parent, *children)]
    for number in which:
        if for_good:
            purge(store, ids[number])
        else:
            tracker.client.delete_run(ids[number])
    second_half(store, parent, children[0])
    with caplog.at_level(logging.WARNING, "knife.track"):
        assert tracker.close() == []
    found = check_whole(store)
    (said,) = caplog.messages
    words = "no longer in MLflow" if for_good else "deleted in MLflow meanwhile: restored"
    assert words in said
    assert said.startswith("1 run " if len(which) == 1 else "3 runs ")
    now = [found[name].info.run_id for name in sorted(found)]
    assert [a == b for a, b in zip(ids, now, strict=True)] == [
        not (for_good and number in which) for number in range(3)
    ]
    assert left(store) == []


_KILLED = """
import os, signal, sys
from pathlib import Path
sys.path += [str(Path(sys.argv[2])), str(Path(sys.argv[2]).parent)]
from test_deleted_runs import first_half, second_half
from knife.track.tracker import Tracker
store = Path(sys.argv[1])
tracker = Tracker(None, store, "exp")
parent, children = first_half(tracker, store)
# Nothing more is sent.
tracker._stop.set()
second_half(store, parent, children[0])
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("which", WHICH.values(), ids=WHICH)
@pytest.mark.parametrize("for_good", [False, True], ids=["marked", "for good"])
def test_sync_makes_deleted_runs_of_a_killed_process_whole(
    store: Path, which: list[int], for_good: bool
) -> None:
    tests = Path(__file__).parent
    done = subprocess.run([sys.executable, "-c", _KILLED, store, tests])
    assert done.returncode == -9
    client = MlflowClient(f"sqlite:///{store / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("exp")
    assert experiment
    runs = client.search_runs([experiment.experiment_id], order_by=["attributes.run_name ASC"])
    assert len(runs) == 3
    for number in which:
        if for_good:
            purge(store, runs[number].info.run_id)
        else:
            client.delete_run(runs[number].info.run_id)
    lines, kept, faults = sync(store)
    assert (kept, faults) == ([], [])
    assert any("deleted in MLflow" in line or "no longer in MLflow" in line for line in lines), (
        lines
    )
    found = check_whole(store)
    assert left(store) == []
    # Once more sends nothing.
    assert sync(store)[0] == [f"there is nothing to send from {store}"]
    assert {n: r.info.run_id for n, r in check_whole(store).items()} == {
        n: r.info.run_id for n, r in found.items()
    }


def test_a_deleted_experiment_is_said_and_all_is_kept_for_its_return(
    tracker: Tracker, store: Path, command: Command
) -> None:
    parent, children = first_half(tracker, store)
    tracker.client.delete_experiment(tracker.experiment_id)
    second_half(store, parent, children[0])
    unsent = tracker.close()
    assert unsent[-1].endswith(f"knife sync --store {store} sends it later")
    assert len(unsent) <= 5
    _, _, faults = sync(store)
    assert faults
    assert "was deleted in MLflow" in faults[0]
    assert command("sync", "--store", store).status == 2
    client = MlflowClient(f"sqlite:///{store / 'mlflow.db'}")
    client.restore_experiment(tracker.experiment_id)
    assert sync(store)[1:] == ([], [])
    check_whole(store)


def test_what_mlflow_never_takes_is_counted_by_run_and_sync_does_not_claim_success(
    tracker: Tracker, store: Path
) -> None:
    parent, children = first_half(tracker, store)
    for child in children:
        for number in range(5):
            child.artifact(store / f"missing-{number}")
    second_half(store, parent, children[0])
    assert tracker.flush()
    lines = tracker.unsent()
    assert len(lines) == 2
    assert "missing-2 and 2 more of run 'seed 0'" in lines[0]
    check_whole(store)


def test_a_run_deleted_after_it_was_done_is_made_anew_by_the_next_start(store: Path) -> None:
    for _ in range(2):
        with Tracker(None, store, "exp") as tracker:
            parent, children = first_half(tracker, store)
            second_half(store, parent, children[0])
        shutil.rmtree(store / "work")
        client = tracker.client
        found = client.search_runs([tracker.experiment_id])
        assert len(found) == 3
        for run in found:
            client.delete_run(run.info.run_id)
    assert resend(store).sent == []
    wait_for(lambda: left(store) == [], 5, 0.1)
