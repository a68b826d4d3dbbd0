"""Against the real MLflow on SQLite. One new database for all: it takes seconds to make."""

import json
import logging
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run
from small_run import wait_for

from knife.track import tracker as tracker_module
from knife.track.data_set import DataSet
from knife.track.remote import PARENT
from knife.track.resend import resend
from knife.track.run import TrackedRun
from knife.track.system import system_metrics
from knife.track.tracker import Tracker
from knife.train.follow import Follower
from knife.train.journal import Row


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables, nothing else."""
    store = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        Tracker(None, store, "made").close()
    return store / "mlflow.db"


@pytest.fixture
def store(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An artifact store with a database that is MLflow's."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(made, tmp_path / "mlflow.db")
    return tmp_path


@pytest.fixture
def tracker(store: Path) -> Iterator[Tracker]:
    with Tracker(None, store, "exp") as opened:
        yield opened


def open_run(tracker: Tracker) -> TrackedRun:
    return tracker.open_run("demo", "key-of-run", {"name": "demo"}, {})


def rows(first: int, last: int, seconds: float = 1e9) -> list[Row]:
    return [
        {"step": s, "epoch": s / 10, "time": seconds + s, "metrics": {"loss": 1 / s}}
        for s in range(first, last + 1)
    ]


def steps(tracker: Tracker, run: TrackedRun, metric: str = "train/loss") -> list[int]:
    return [m.step for m in tracker.client.get_metric_history(run.run_id, metric)]


def fetch(tracker: Tracker, run: TrackedRun) -> Run:
    return tracker.client.get_run(run.run_id)


def write(path: Path, content: list[Row], mode: str = "w") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open(mode) as file:
        file.writelines(json.dumps(row) + "\n" for row in content)


def test_a_run_has_config_tags_and_nested_children(tracker: Tracker, store: Path) -> None:
    config = {"name": "demo", "data": {"fraction": 0.1}, "seeds": list(range(5000))}
    run = tracker.open_run("demo", "k1", config, {"knife.data": "abc"})
    teacher = run.child("teacher", "k2", {"epochs": 10}, {"knife.kind": "teacher"})
    student = run.child("knife-0", "k3", {}, {})
    student.finish("FAILED")
    assert tracker.flush()
    parent = fetch(tracker, run)
    assert parent.info.run_name == "demo"
    assert parent.info.status == "RUNNING"
    assert parent.data.params["data.fraction"] == "0.1"
    assert parent.data.tags["knife.data"] == "abc"
    assert parent.data.tags["knife.key"] == "k1"
    saved = tracker.client.download_artifacts(run.run_id, "config.yaml")
    assert yaml.safe_load(Path(saved).read_text()) == config
    assert Path(parent.info.artifact_uri.removeprefix("file://")).is_relative_to(
        store / "mlartifacts"
    )
    nested = tracker.client.search_runs(
        [tracker.experiment_id], f"tags.`{PARENT}` = '{run.run_id}'"
    )
    assert {r.info.run_name: r.info.status for r in nested} == {
        "teacher": "RUNNING",
        "knife-0": "FAILED",
    }
    assert fetch(tracker, teacher).data.params == {"epochs": "10"}


def test_a_run_that_begins_anew_and_ends_while_it_is_opened_has_ended(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a run that a killed driver has left is gone on with: one thread tells, one sends."""
    child = open_run(tracker).child("trial", "k", {}, {})
    update, told = tracker.client.update_run, threading.Event()

    def told_meanwhile(run_id: str, **values: str) -> None:
        update(run_id, **values)
        if run_id == child.run_id and not told.is_set():
            told.set()
            child.opened({}, {})
            child.finish("FINISHED")

    monkeypatch.setattr(tracker.client, "update_run", told_meanwhile)
    assert tracker.flush()
    assert told.is_set()
    assert tracker.flush()
    assert fetch(tracker, child).info.status == "FINISHED"
    assert not child.unsent()


def test_the_same_place_is_the_same_run(tracker: Tracker) -> None:
    run = open_run(tracker)
    assert run.child("teacher", "k", {}, {}) is run.child("teacher", "k", {}, {})
    assert tracker.flush()
    # A parent run is never taken from among the children.
    other = tracker.open_run("other", "k", {}, {})
    assert other.run_id not in (run.run_id, run.child("", "k", {}, {}).run_id)
    # Equal keys under two parents are two runs.
    twin = other.child("teacher", "k", {}, {})
    assert tracker.flush()
    assert twin.run_id != run.child("teacher", "k", {}, {}).run_id


def test_a_reopened_run_goes_on(store: Path) -> None:
    model = store / "student" / "k"
    model.mkdir(parents=True)
    (model / "knife.json").write_text("{}")
    ids: list[tuple[str | None, str | None]] = []
    for workers in (1, 1, 2):
        with Tracker(None, store, "exp") as tracker:
            config = {"scale": {"workers": workers}, "seeds": [0]}
            run = tracker.open_run("demo", "k1", config, {"git": f"commit-{workers}"})
            child = run.child("knife-0", "k2", {"seed": 0}, {})
            assert fetch(tracker, run).info.status == "RUNNING"
            # Journals may be written again, at other times.
            child.send(rows(1, 10 + len(ids), seconds=1e9 * (1 + len(ids))))
            child.log_summary({"accuracy": 0.75})
            child.model(model, "student.v1:0")
            child.finish("FINISHED")
            run.finish("FINISHED")
            assert tracker.close() == []
            ids.append((run.run_id, child.run_id))
            assert fetch(tracker, run).info.status == "FINISHED"
    assert len(set(ids)) == 1
    client = tracker.client
    assert len(client.search_runs([tracker.experiment_id])) == 2
    assert steps(tracker, child) == list(range(1, 13))
    assert steps(tracker, child, "train/epoch") == list(range(1, 13))
    assert len(client.get_metric_history(child.run_id, "accuracy")) == 1
    (logged,) = client.search_logged_models([tracker.experiment_id])
    assert (logged.name, logged.status) == ("student-v1-0", "READY")
    folder = Path(logged.artifact_location.removeprefix("file://"))
    assert (folder / "artifacts" / "student" / "knife.json").read_text() == "{}"
    (output,) = fetch(tracker, child).outputs.model_outputs
    assert output.model_id == logged.model_id
    # A param cannot change in MLflow; the tag and config.yaml say what is true now.
    parent = fetch(tracker, run)
    assert parent.data.params["scale.workers"] == "1"
    assert parent.data.tags["knife.changed"] == "scale.workers: 1 -> 2"
    assert parent.data.tags["git"] == "commit-2"


def test_a_half_uploaded_model_is_completed(tracker: Tracker, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "knife.json").write_text("{}")
    run = open_run(tracker)
    left = tracker.client.create_logged_model(
        tracker.experiment_id, name="student", source_run_id=run.run_id
    )
    run.model(folder, "student")
    assert tracker.close() == []
    (logged,) = tracker.client.search_logged_models([tracker.experiment_id])
    assert (logged.model_id, logged.status) == (left.model_id, "READY")


def test_more_metrics_than_a_batch_takes(tracker: Tracker) -> None:
    run = open_run(tracker)
    run.send(rows(1, 1100))
    assert tracker.flush()
    assert steps(tracker, run) == list(range(1, 1101))
    assert steps(tracker, run, "train/epoch") == list(range(1, 1101))
    last = tracker.client.get_metric_history(run.run_id, "train/loss")[-1]
    assert (last.value, last.timestamp) == (1 / 1100, (10**9 + 1100) * 1000)


def test_rows_that_come_twice_are_sent_once(tracker: Tracker) -> None:
    run = open_run(tracker)
    run.send(rows(1, 8) + rows(5, 9, seconds=2e9))
    assert tracker.flush()
    run.send(rows(3, 12, seconds=3e9))
    assert tracker.flush()
    assert steps(tracker, run) == list(range(1, 13))


def test_odd_numbers_arrive(tracker: Tracker) -> None:
    run = open_run(tracker)
    run.send([{"step": 0, "time": 1.0, "metrics": {"loss": float("nan"), "x": float("inf")}}])
    assert tracker.close() == []
    assert steps(tracker, run, "loss") == steps(tracker, run, "x") == [0]
    (point,) = tracker.client.get_metric_history(run.run_id, "loss")
    assert point.value != point.value


def test_artifacts(tracker: Tracker, tmp_path: Path) -> None:
    folder = tmp_path / "plots"
    folder.mkdir()
    (folder / "a.txt").write_text("a")
    run = open_run(tracker)
    run.artifact(folder / "a.txt", "one")
    run.artifact(folder, "all")
    run.artifact(tmp_path / "missing.txt")
    run.text("note.txt", "seen at http://me:secret@host/")
    unsent = tracker.close()
    root = Path(fetch(tracker, run).info.artifact_uri.removeprefix("file://"))
    assert (root / "one" / "a.txt").read_text() == (root / "all" / "a.txt").read_text() == "a"
    assert (root / "note.txt").read_text() == "seen at http://***@host/"
    (line,) = unsent
    assert "artifact missing.txt of run 'demo'" in line


def test_passwords_are_nowhere(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    secret = "sEcrEt"
    uri = f"http://me:{secret}@host:5000"
    with Tracker(None, store, "exp") as tracker:
        run = tracker.open_run("demo", "k", {"track": {"uri": uri}, "l": [uri]}, {"remote": uri})
        run.child("c", "c", {"uri": uri}, {"uri": uri})
        run.text("note.txt", uri)
        logging.getLogger("mlflow").warning("asked %s", uri)
    for path in store.rglob("*"):
        assert path.is_dir() or secret.encode() not in path.read_bytes(), path
    said = capsys.readouterr().err
    assert "asked http://***@host:5000" in said
    assert secret not in said


def test_a_metric_that_mlflow_refuses_holds_up_nothing(tracker: Tracker) -> None:
    run = open_run(tracker)
    run.send([{**row, "metrics": {"no #name": 1.0, "loss": 0.5}} for row in rows(1, 3)])
    (line,) = tracker.close()
    assert line.startswith("MLflow did not take the metric 'train/no #name' of run 'demo'")
    # Nor those of other names that were sent in one batch with it.
    assert steps(tracker, run) == [1, 2, 3]


def test_a_broken_store_is_told_once_and_everything_is_sent_later(
    tracker: Tracker,
    store: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tracker_module, "SHORTEST_PAUSE", 0.05)
    run = open_run(tracker)
    run.send(rows(1, 3))
    assert tracker.flush()
    with closing(sqlite3.connect(store / "mlflow.db")) as database:
        database.execute("ALTER TABLE metrics RENAME TO gone")
        run.send(rows(4, 6))
        child = run.child("late", "late", {}, {})
        run.finish("FINISHED")
        assert not tracker.flush()
        try:
            raise ValueError("the work failed")
        except ValueError:
            # A run that fails closes its tracker: its own error is not why MLflow lacks something.
            assert not tracker.flush()
        (first, second, advice) = tracker.unsent()
        assert advice.endswith(f"knife sync --store {store} sends it later")
        assert first.startswith("MLflow lacks 3 rows of metrics, the status FINISHED of run 'demo'")
        assert "no such table" in first
        assert second.startswith("MLflow lacks the start, params and tags of run 'late'")
        database.execute("ALTER TABLE gone RENAME TO metrics")
    # Nobody tells the thread: it tries again by itself.
    end = time.monotonic() + 300
    while tracker.unsent() and time.monotonic() < end:
        time.sleep(0.05)
    assert tracker.unsent() == []
    assert steps(tracker, run) == [1, 2, 3, 4, 5, 6]
    assert fetch(tracker, run).info.status == "FINISHED"
    assert child.run_id
    warnings = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert [text.startswith("MLflow at sqlite:") for text in warnings] == [True]


def test_a_batch_that_fails_half_way_is_completed(tracker: Tracker, store: Path) -> None:
    run = open_run(tracker)
    with closing(sqlite3.connect(store / "mlflow.db")) as database:
        database.execute(
            "CREATE TRIGGER fail BEFORE INSERT ON metrics WHEN NEW.step > 700 "
            "BEGIN SELECT abs(-9223372036854775808); END"
        )
        run.send(rows(1, 1200))
        assert not tracker.flush()
        assert steps(tracker, run) == list(range(1, 501)), "the first batch of 1,000 metrics"
        database.execute("DROP TRIGGER fail")
    assert tracker.close() == []
    assert steps(tracker, run) == steps(tracker, run, "train/epoch") == list(range(1, 1201))


@pytest.mark.parametrize("failed", [False, True])
def test_what_stays_unsent_is_said_once(
    store: Path, caplog: pytest.LogCaptureFixture, failed: bool
) -> None:
    """By whoever shows the results, or where there are none, in the log."""
    with suppress(KeyError), Tracker(None, store, "exp") as tracker:
        run = open_run(tracker)
        with closing(sqlite3.connect(store / "mlflow.db")) as database:
            database.execute("ALTER TABLE metrics RENAME TO gone")
        run.send(rows(1, 2))
        if failed:
            raise KeyError
    (line, _) = tracker.unsent()
    assert line.startswith("MLflow lacks 2 rows of metrics")
    assert "of run 'demo': no such table" in line
    assert caplog.text.count(line) == failed


def test_following_a_stage_that_works_moves_and_is_done(tracker: Tracker, store: Path) -> None:
    work, done = store / "work" / "student-k", store / "student" / "k"
    run = open_run(tracker)
    total = 400
    with Follower(store, interval=0.01) as follower:
        follower.follow("student", "k", run)
        write(work / "journal.jsonl", [])
        for row in rows(1, total):
            folder = done if done.exists() else work
            write(folder / "journal.jsonl", [row], "a")
            if row["step"] == total // 2:
                done.parent.mkdir()
                work.rename(done)
            time.sleep(0.001)
    assert follower.newest()["student", "k"] == rows(total, total)[0]
    assert tracker.close() == []
    assert steps(tracker, run) == list(range(1, total + 1))


def test_following_a_stage_that_was_cut_back_to_its_checkpoint(
    tracker: Tracker, store: Path
) -> None:
    journal = store / "work" / "student-k" / "journal.jsonl"
    run = open_run(tracker)
    with Follower(store, interval=60) as follower:
        follower.follow("student", "k", run)
        write(journal, rows(1, 30))
        follower.poll()
        write(journal, rows(1, 20) + rows(21, 40, seconds=2e9))
        follower.poll()
    assert tracker.close() == []
    assert steps(tracker, run) == list(range(1, 41))


def test_a_stage_done_long_ago_is_sent_whole(tracker: Tracker, store: Path) -> None:
    write(store / "teacher" / "k" / "journal.jsonl", rows(1, 5))
    run = open_run(tracker)
    with Follower(store) as follower:
        follower.follow("teacher", "k", run)
    assert tracker.close() == []
    assert steps(tracker, run) == [1, 2, 3, 4, 5]


def test_several_threads_may_talk_at_once(tracker: Tracker) -> None:
    run = open_run(tracker)

    def talk(number: int) -> None:
        child = run.child(f"c{number}", f"c{number}", {}, {})
        for step in range(1, 21):
            child.send(rows(step, step))
            tracker.flush()
        child.finish("FINISHED")

    threads = [threading.Thread(target=talk, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tracker.close() == []
    found = tracker.client.search_runs([tracker.experiment_id], f"tags.`{PARENT}` != ''")
    assert sorted(r.info.run_name for r in found) == ["c0", "c1", "c2", "c3"]
    for number in range(4):
        assert steps(tracker, run.child("", f"c{number}", {}, {})) == list(range(1, 21))


DRIVER = """
import sys, time
from pathlib import Path
from knife.track.data_set import DataSet
from knife.train.follow import Follower
from knife.track.system import system_metrics
from knife.track.tracker import Tracker
store = Path(sys.argv[1])
tracker = Tracker(None, store, "exp")
child = tracker.open_run("demo", "k1", {}, {}).child("student", "k2", {}, {})
with Follower(store, interval=0.01) as follower:
    follower.follow("student", "k", child)
    time.sleep(600)
"""


def test_a_killed_driver_sends_nothing_twice(store: Path) -> None:
    journal = store / "work" / "student-k" / "journal.jsonl"
    write(journal, rows(1, 50))
    environment = os.environ | {"PYTHONPATH": str(Path(tracker_module.__file__).parents[2])}
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, str(store)], env=environment)
    client = MlflowClient(f"sqlite:///{store / 'mlflow.db'}")
    count, step, end = 0, 50, time.monotonic() + 300
    with closing(sqlite3.connect(store / "mlflow.db", timeout=20)) as database:
        while count < 300 and time.monotonic() < end:
            write(journal, rows(step + 1, step + 5), "a")
            step += 5
            time.sleep(0.01)
            (count,) = database.execute("SELECT count(*) FROM metrics").fetchone()
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert count >= 300
    # The stage was killed too, goes on from a checkpoint, and ends.
    write(journal, rows(1, 40) + rows(41, step + 100, seconds=2e9))
    with Tracker(None, store, "exp") as tracker:
        child = tracker.open_run("demo", "k1", {}, {}).child("student", "k2", {}, {})
        with Follower(store) as follower:
            follower.follow("student", "k", child)
        assert tracker.close() == []
    assert len(client.search_runs([tracker.experiment_id])) == 2
    assert steps(tracker, child) == list(range(1, step + 101))


def test_what_is_nested_in_a_run_that_fails_runs_no_longer(tracker: Tracker) -> None:
    run = open_run(tracker)
    done, trial = run.child("done", "d", {}, {}), run.child("trial", "t", {}, {})
    seed = trial.child("seed", "s", {}, {})
    done.finish("FINISHED")
    run.finish("FAILED")
    assert tracker.close() == []
    found = [fetch(tracker, each).info for each in (run, done, trial, seed)]
    assert [info.status for info in found] == ["FAILED", "FINISHED", "FAILED", "FAILED"]


KILLED = """
import os, signal, sys
from pathlib import Path
from knife.track.system import system_metrics
from knife.track.tracker import Tracker
with Tracker(None, Path(sys.argv[1]), "exp") as tracker:
    run = tracker.open_run("killed", "k", {}, {})
    ended, child = run.child("ended", "e", {}, {}), run.child("child", "c", {}, {})
    ended.finish("FINISHED")
    assert tracker.flush()
    child.log_summary({"seconds": 1})
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("way", ["resend", "another run"])
def test_runs_of_a_process_that_was_killed_do_not_run_for_ever(store: Path, way: str) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, store])
    assert done.returncode == -signal.SIGKILL
    told = time.time()

    def statuses() -> dict[str, str]:
        client = MlflowClient(f"sqlite:///{store / 'mlflow.db'}")
        runs = client.search_runs([client.get_experiment_by_name("exp").experiment_id])
        assert all(r.info.end_time is None or r.info.end_time <= told * 1000 for r in runs)
        return {run.info.run_name: run.info.status for run in runs}

    assert statuses() == {"killed": "RUNNING", "ended": "FINISHED", "child": "RUNNING"}
    if way == "resend":
        assert resend(store).kept == []
    else:
        with Tracker(None, store, "exp") as tracker:
            run = open_run(tracker)
            wait_for(lambda: "RUNNING" not in [statuses()[n] for n in ("killed", "child")])
            run.finish("KILLED", told)
    wanted = {"killed": "KILLED", "ended": "FINISHED", "child": "KILLED"}
    assert wanted.items() <= statuses().items()
    # Started again, it goes on.
    with Tracker(None, store, "exp") as tracker:
        run = tracker.open_run("killed", "k", {}, {})
        child = run.child("child", "c", {}, {})
        assert tracker.flush()
        assert fetch(tracker, child).info.status == "RUNNING"
        assert fetch(tracker, child).data.metrics == {"seconds": 1}
        run.finish("KILLED", told)


def test_the_machine_is_measured_while_the_work_goes_on(tracker: Tracker) -> None:
    run = open_run(tracker)
    with system_metrics(run, seconds=0.05):
        wait_for(lambda: tracker.flush() and "system/cpu_utilization_percentage" in
                 fetch(tracker, run).data.metrics)  # fmt: skip
    assert 0 < fetch(tracker, run).data.metrics["system/system_memory_usage_percentage"] < 100


def test_a_container_without_network_is_measured_all_the_same(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("psutil.net_io_counters", lambda: None)
    run = open_run(tracker)
    with system_metrics(run, seconds=0.05):
        wait_for(lambda: tracker.flush() and "system/cpu_utilization_percentage" in
                 fetch(tracker, run).data.metrics)  # fmt: skip
    assert "system/network_receive_megabytes" not in fetch(tracker, run).data.metrics


def test_the_data_sets_of_a_run_are_noted_once_and_not_copied(tracker: Tracker) -> None:
    run = open_run(tracker)
    sets = [
        DataSet("creatures", split, f"digest-{split}", f"/store/data/k/{split}.jsonl", 7, 3)
        for split in ("train", "test")
    ]
    for _ in range(2):
        run.inputs(sets)
        assert tracker.flush()
    found = fetch(tracker, run).inputs.dataset_inputs
    assert {(each.dataset.name, each.dataset.digest, each.tags[0].value) for each in found} == {
        ("creatures train", "digest-train", "train"),
        ("creatures test", "digest-test", "test"),
    }
    assert len(found) == 2
    assert json.loads(found[0].dataset.profile) == {"num_rows": 7, "rationales": 3}


def test_a_new_experiment_says_what_is_in_it(tracker: Tracker) -> None:
    tags = tracker.client.get_experiment(tracker.experiment_id).tags
    assert "knife.champion" in tags["mlflow.note.content"]


def interrupted(store: Path) -> tuple[Tracker, list[TrackedRun]]:
    with suppress(KeyboardInterrupt), Tracker(None, store, "exp") as tracker:
        run = open_run(tracker)
        runs = [run, run.child("child", "c", {}, {})]
        raise KeyboardInterrupt
    return tracker, runs


def test_whatever_ends_the_work_leaves_no_run_running(store: Path) -> None:
    tracker, runs = interrupted(store)
    assert [fetch(tracker, each).info.status for each in runs] == ["KILLED", "KILLED"]
