"""Runs, experiments and databases that somebody deletes while they are written to: MLflow has all
of it in the end, or what it lacks is said and kept."""

import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from command_fixtures import Command
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from trees import ENDED, STAGE, Shown, journal, node, rows, write

from knife.cli.sync import sync
from knife.store.store import Store
from knife.track.destination import unsent
from knife.track.node import RunNode
from knife.track.remote import PARENT
from knife.track.tracker import Tracker
from knife.tune.progress import sweep_tree

TESTS = Path(__file__).parents[1]


def first_half() -> RunNode:
    """A run with two nested ones, one of which has ended."""
    return node(
        "demo",
        node("seed 0", params={"seed": "0"}, journals=(STAGE,)),
        node("seed 1", params={"seed": "1"}, summary={"dev_accuracy": 0.5}, status="FINISHED"),
        params={"name": "demo"},
        tags={"knife.what": "a run"},
        summary={"before": 1.0},
    )


def whole() -> RunNode:
    """The same run when it has ended."""
    files = ("runs/key-of-demo/early.txt",)
    ended = {"status": "FINISHED", "ended": ENDED}
    return node(
        "demo",
        node("seed 0", params={"seed": "0"}, journals=(STAGE,), files=files, **ended),
        node("seed 1", params={"seed": "1"}, summary={"dev_accuracy": 0.5}, **ended),
        params={"name": "demo"},
        tags={"knife.what": "a run"},
        summary={"before": 1.0, "after": 2.0},
        **ended,
    )


def begin(tracker: Tracker, store: Store) -> Shown:
    """The first half of a run's life; all of it is sent."""
    write(journal(store), rows(1, 10))
    shown = Shown(tracker, store, first_half())
    assert tracker.flush()
    return shown


def end(shown: Shown, store: Store) -> None:
    """The rest of its life."""
    write(journal(store), rows(11, 20), "a")
    (shown.folder / "early.txt").write_text("early")
    shown.root = whole()


def made_up(folder: Path, store: Store, *, alive: bool) -> RunNode:
    """What `sync` finds in the folder of the run."""
    assert (folder.name, store.root, alive) == ("key-of-demo", folder.parents[1], False)
    return whole()


@pytest.fixture(autouse=True)
def _made_up_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sweep_tree.TREES, "runs", made_up)


def check_whole(store: Store) -> dict[str, Run]:
    """Three runs, each once, with all that the store has of them."""
    client = MlflowClient(f"sqlite:///{store.root / 'mlflow.db'}")
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


def purge(store: Store, *run_ids: str) -> None:
    """What `mlflow gc` does to runs."""
    folder = store.root
    database = SqlAlchemyStore(f"sqlite:///{folder / 'mlflow.db'}", str(folder / "mlartifacts"))
    for run_id in run_ids:
        database._hard_delete_run(run_id)


WHICH = {"one child": [1], "a child that had ended": [2], "the parent": [0], "all": [0, 1, 2]}


@pytest.mark.parametrize("which", WHICH.values(), ids=WHICH)
@pytest.mark.parametrize("for_good", [False, True], ids=["marked", "for good"])
def test_runs_deleted_while_they_are_written_are_whole_in_the_end(
    tracker: Tracker,
    store: Store,
    which: list[int],
    for_good: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    shown = begin(tracker, store)
    ids = [shown.runs()[name].info.run_id for name in ("demo", "seed 0", "seed 1")]
    for number in which:
        if for_good:
            purge(store, ids[number])
        else:
            tracker.client.delete_run(ids[number])
    end(shown, store)
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
    assert list(unsent(store.root)) == []


_KILLED = """
import os, signal, sys
from pathlib import Path
sys.path += [sys.argv[2], sys.argv[2] + "/track"]
from test_deleted_runs import begin, end
from knife.store.store import Store
from knife.track.tracker import Tracker
store = Store(Path(sys.argv[1]))
tracker = Tracker(None, store, "exp", {})
shown = begin(tracker, store)
# Nothing more is sent.
tracker._stop.set()
end(shown, store)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("which", WHICH.values(), ids=WHICH)
@pytest.mark.parametrize("for_good", [False, True], ids=["marked", "for good"])
def test_sync_makes_deleted_runs_of_a_killed_process_whole(
    store: Store, which: list[int], for_good: bool
) -> None:
    done = subprocess.run([sys.executable, "-c", _KILLED, store.root, TESTS])
    assert done.returncode == -9
    client = MlflowClient(f"sqlite:///{store.root / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("exp")
    assert experiment
    runs = client.search_runs([experiment.experiment_id], order_by=["attributes.run_name ASC"])
    assert len(runs) == 3
    for number in which:
        if for_good:
            purge(store, runs[number].info.run_id)
        else:
            client.delete_run(runs[number].info.run_id)
    lines, kept, errors = sync(store.root)
    assert (kept, errors) == ([], [])
    # Of runs that are gone for good, only those of this process are known to have been there.
    assert any("deleted in MLflow meanwhile: restored" in line for line in lines) != for_good
    found = check_whole(store)
    assert list(unsent(store.root)) == []
    # Once more sends nothing.
    assert sync(store.root)[0] == [f"there is nothing to send from {store.root}"]
    assert {n: r.info.run_id for n, r in check_whole(store).items()} == {
        n: r.info.run_id for n, r in found.items()
    }


def test_a_deleted_experiment_is_said_and_all_is_kept_for_its_return(
    tracker: Tracker, store: Store, command: Command
) -> None:
    shown = begin(tracker, store)
    tracker.client.delete_experiment(tracker.experiment_id)
    end(shown, store)
    lines = tracker.close()
    assert lines[-1].endswith(f"knife sync --store {store.root} sends it later")
    assert len(lines) <= 5
    _, _, errors = sync(store.root)
    assert errors
    assert "was deleted in MLflow" in errors[0]
    assert command("sync", "--store", store.root).status == 2
    client = MlflowClient(f"sqlite:///{store.root / 'mlflow.db'}")
    client.restore_experiment(tracker.experiment_id)
    assert sync(store.root)[1:] == ([], [])
    check_whole(store)


def test_what_mlflow_never_takes_is_counted_by_run_and_sync_does_not_claim_success(
    tracker: Tracker, store: Store
) -> None:
    shown = begin(tracker, store)
    end(shown, store)
    missing = tuple(f"runs/key-of-demo/missing-{number}" for number in range(5))
    first, second = shown.root.children
    shown.change(
        children=(
            replace(first, files=(*first.files, *missing)),
            replace(second, files=missing),
        )
    )
    assert tracker.flush(last=True)
    lines = tracker.unsent()
    assert len(lines) == 2
    assert "missing-2 and 2 more of run 'seed 0'" in lines[0]
    check_whole(store)


def test_a_run_deleted_after_it_was_done_is_made_anew_by_the_next_start(store: Store) -> None:
    for _ in range(2):
        with Tracker(None, store, "exp", {}) as tracker:
            end(begin(tracker, store), store)
        client = tracker.client
        found = client.search_runs([tracker.experiment_id])
        assert len(found) == 3
        for run in found:
            client.delete_run(run.info.run_id)
    assert sync(store.root)[0] == [f"there is nothing to send from {store.root}"]
