"""Against the real MLflow on SQLite."""

import json
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from small_run import wait_for
from trees import BEGAN, ENDED, STAGE, Shown, journal, node, rows, runs, write

from knife.store.store import Store
from knife.track import tracker as tracker_module
from knife.track.destination import Destination, unsent
from knife.track.node import SYSTEM, DataSet
from knife.track.remote import PARENT
from knife.track.system import system_metrics
from knife.track.tracker import Tracker

TESTS = Path(__file__).parents[1]
FOLLOWS = {"journals": (STAGE,)}


@contextmanager
def tracked(store: Store) -> Iterator[Tracker]:
    with Tracker(None, store, "exp", {}) as tracker:
        yield tracker


def test_a_run_has_params_tags_texts_and_nested_runs(tracker: Tracker, store: Store) -> None:
    config = {"name": "demo", "seeds": list(range(5000))}
    teacher = node("teacher", params={"epochs": "10"})
    student = node("knife seed 0", status="FAILED")
    root = node(
        *("demo", teacher, student),
        params={"data.fraction": "0.1"},
        tags={"knife.data": "abc"},
        texts={"config.yaml": yaml.safe_dump(config)},
    )
    Shown(tracker, store, root)
    assert tracker.flush()
    found = runs(tracker)
    parent = found["demo"]
    assert (parent.info.status, parent.info.start_time) == ("RUNNING", int(BEGAN * 1000))
    assert parent.data.params == {"data.fraction": "0.1"}
    assert parent.data.tags["knife.data"] == "abc"
    assert parent.data.tags["knife.key"] == root.key
    saved = tracker.client.download_artifacts(parent.info.run_id, "config.yaml")
    assert yaml.safe_load(Path(saved).read_text()) == config
    folder = Path(parent.info.artifact_uri.removeprefix("file://"))
    assert folder.is_relative_to(store.root / "mlartifacts")
    for name, status in (("teacher", "RUNNING"), ("knife seed 0", "FAILED")):
        assert found[name].info.status == status
        assert found[name].data.tags[PARENT] == parent.info.run_id
    assert found["teacher"].data.params == {"epochs": "10"}
    assert found["knife seed 0"].info.end_time == int(ENDED * 1000)


def test_a_run_is_found_by_its_key_below_its_parent(store: Store) -> None:
    ids = []
    for _ in range(2):
        with tracked(store) as tracker:
            Shown(tracker, store, node("one", node("twin of one", key="k")))
    for key in ("two", "k"):
        # A parent run is never taken from among the nested ones, and equal keys under two parents
        # are two runs.
        with tracked(store) as tracker:
            Shown(tracker, store, node(key, node(f"twin of {key}", key="k"), key=key))
            ids.append(tracker.run_id)
    found = runs(tracker)
    assert sorted(found) == ["k", "one", "twin of k", "twin of one", "twin of two", "two"]
    assert [found["two"].info.run_id, found["k"].info.run_id] == ids


def test_a_run_that_is_started_again_is_the_same_run(store: Store) -> None:
    model = store.root / "student" / "k" / "model"
    model.mkdir(parents=True)
    (model / "knife.json").write_text("{}")
    ids = []
    for number, workers in enumerate(("1", "1", "2")):
        with tracked(store) as tracker:
            student = node(
                "student.v1:0",
                status="FINISHED",
                summary={"accuracy": 0.75},
                model="student/k/model",
                **FOLLOWS,
            )
            parent = node("demo", student, params={"workers": workers}, tags={"git": workers})
            shown = Shown(tracker, store, parent)
            assert runs(tracker)["demo"].info.status == "RUNNING"
            # Journals may be written again, at other times.
            write(journal(store), rows(1, 10 + number, seconds=1e9 * (1 + number)))
            shown.change(status="FINISHED", ended=ENDED)
            assert tracker.close() == []
            ids.append({name: run.info.run_id for name, run in runs(tracker).items()})
            assert runs(tracker)["demo"].info.status == "FINISHED"
        assert list(unsent(store.root)) == []
    assert ids[0] == ids[1] == ids[2]
    assert len(ids[0]) == 2
    client = tracker.client
    assert shown.steps("student.v1:0") == list(range(1, 13))
    assert shown.steps("student.v1:0", "train/epoch") == list(range(1, 13))
    assert shown.steps("student.v1:0", "accuracy") == [0]
    (logged,) = client.search_logged_models([tracker.experiment_id])
    assert (logged.name, logged.status) == ("student-v1-0", "READY")
    folder = Path(logged.artifact_location.removeprefix("file://"))
    assert (folder / "artifacts" / "student" / "knife.json").read_text() == "{}"
    (output,) = runs(tracker)["student.v1:0"].outputs.model_outputs
    assert output.model_id == logged.model_id
    # A param cannot change in MLflow; the tag and config.yaml say what is true now.
    found = runs(tracker)["demo"]
    assert found.data.params["workers"] == "1"
    assert found.data.tags["knife.changed"] == "workers: 1 -> 2"
    assert found.data.tags["git"] == "2"


def test_a_half_uploaded_model_is_completed(tracker: Tracker, store: Store) -> None:
    (store.root / "student" / "k").mkdir(parents=True)
    (store.root / "student" / "k" / "knife.json").write_text("{}")
    shown = Shown(tracker, store, node("student"))
    left = tracker.client.create_logged_model(
        tracker.experiment_id, name="student", source_run_id=tracker.run_id
    )
    shown.change(model="student/k/.")
    assert tracker.close() == []
    (logged,) = tracker.client.search_logged_models([tracker.experiment_id])
    assert (logged.model_id, logged.status) == (left.model_id, "READY")


def test_more_metrics_than_a_batch_takes(tracker: Tracker, store: Store) -> None:
    write(journal(store), rows(1, 1100))
    shown = Shown(tracker, store, node("demo", **FOLLOWS))
    assert tracker.flush()
    assert shown.steps("demo") == shown.steps("demo", "train/epoch") == list(range(1, 1101))
    last = tracker.client.get_metric_history(tracker.run_id, "train/loss")[-1]
    assert (last.value, last.timestamp) == (1 / 1100, (10**9 + 1100) * 1000)


def test_rows_that_are_written_again_are_sent_once(tracker: Tracker, store: Store) -> None:
    """As by a stage that resumes from its checkpoint."""
    shown = Shown(tracker, store, node("demo", **FOLLOWS))
    for first, last, seconds in ((1, 8, 1e9), (5, 9, 2e9), (3, 12, 3e9)):
        write(journal(store), rows(1, first - 1) + rows(first, last, seconds=seconds))
        assert tracker.flush()
    assert shown.steps("demo") == list(range(1, 13))


def test_a_result_that_changes_is_shown_as_it_is_now(tracker: Tracker, store: Store) -> None:
    shown = Shown(tracker, store, node("demo", status="FINISHED", ended=BEGAN))
    for score in (0.8, 0.9, 0.7):
        shown.change(summary={"score": score})
        assert tracker.flush()
        assert shown.runs()["demo"].data.metrics == {"score": score}


def test_odd_numbers_arrive(tracker: Tracker, store: Store) -> None:
    odd = {"loss": float("nan"), "x": float("inf")}
    shown = Shown(tracker, store, node("demo", rows=({"step": 0, "time": 1.0, "metrics": odd},)))
    assert tracker.close() == []
    assert shown.steps("demo", "loss") == shown.steps("demo", "x") == [0]
    (point,) = tracker.client.get_metric_history(tracker.run_id, "loss")
    assert point.value != point.value


def test_files_are_uploaded_again_only_when_they_changed(
    tracker: Tracker, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = Shown(tracker, store, node("demo"))
    folder = store.root / "runs" / shown.root.key
    (folder / "plots").mkdir()
    for name in ("a.txt", "plots/b.txt"):
        (folder / name).write_text(name)
    below = f"runs/{shown.root.key}"
    files = (f"{below}/a.txt", f"{below}/plots/b.txt", f"{below}/missing.txt")
    shown.change(files=files, texts={"note.txt": "first"})
    uploads = []
    upload = tracker.client.log_artifact

    def counted(run_id: str, path: str, *folder: str | None) -> None:
        uploads.append(Path(path).name)
        upload(run_id, path, *folder)

    monkeypatch.setattr(tracker.client, "log_artifact", counted)
    assert tracker.flush(last=True), tracker.unsent()
    (folder / "a.txt").write_text("changed")
    shown.change(texts={"note.txt": "second"})
    (line,) = tracker.close()
    assert "artifact missing.txt of run 'demo'" in line
    assert uploads == ["note.txt", "a.txt", "b.txt", "note.txt", "a.txt"]
    root = Path(runs(tracker)["demo"].info.artifact_uri.removeprefix("file://"))
    found = {path.name: path.read_text() for path in root.iterdir()}
    assert found == {"a.txt": "changed", "b.txt": "plots/b.txt", "note.txt": "second"}


def test_passwords_are_nowhere(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    secret = "sEcrEt"
    with Tracker(f"http://me:{secret}@127.0.0.1:9", store, "exp", {}) as tracker:
        Shown(tracker, store, node("demo", node("child")))
        logging.getLogger("mlflow").warning("asked %s", f"http://me:{secret}@host:5000")
    for path in store.root.rglob("*"):
        assert path.is_dir() or secret.encode() not in path.read_bytes(), path
    said = capsys.readouterr().err
    assert "asked http://***@host:5000" in said
    assert secret not in said


def test_a_metric_that_mlflow_refuses_holds_up_nothing(tracker: Tracker, store: Store) -> None:
    content = rows(1, 3)
    for row in content:
        row["metrics"] = {"no #name": 1.0, "loss": 0.5}
    write(journal(store), content)
    shown = Shown(tracker, store, node("demo", **FOLLOWS))
    (line,) = tracker.close()
    assert line.startswith("MLflow did not take the metric 'train/no #name' of run 'demo'")
    # Nor those of other names that were sent in one batch with it.
    assert shown.steps("demo") == [1, 2, 3]


def test_a_broken_database_is_reported_once_and_everything_is_sent_later(
    tracker: Tracker,
    store: Store,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tracker_module, "SHORTEST_PAUSE", 0.05)
    write(journal(store), rows(1, 3))
    shown = Shown(tracker, store, node("demo", **FOLLOWS))
    assert tracker.flush()
    with closing(sqlite3.connect(store.root / "mlflow.db")) as database:
        database.execute("ALTER TABLE metrics RENAME TO gone")
        write(journal(store), rows(4, 6), "a")
        shown.root = replace(shown.root, status="FINISHED", ended=ENDED, children=(node("late"),))
        assert not tracker.flush()
        try:
            raise ValueError("the work failed")
        except ValueError:
            # A run that fails closes its tracker: its own error is not why MLflow lacks something.
            assert not tracker.flush()
        (first, second, advice) = tracker.unsent()
        assert advice.endswith(f"knife sync --store {store.root} sends it later")
        assert first.startswith("MLflow lacks 3 rows of metrics, the status FINISHED of run 'demo'")
        assert "no such table" in first
        assert second.startswith("MLflow lacks all of run 'late'")
        database.execute("ALTER TABLE gone RENAME TO metrics")
    # Nobody asks the thread: it tries again by itself.
    wait_for(lambda: not tracker.unsent(), pause=0.05)
    assert shown.steps("demo") == [1, 2, 3, 4, 5, 6]
    assert runs(tracker)["demo"].info.status == "FINISHED"
    assert runs(tracker)["late"].info.status == "RUNNING"
    warnings = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert [text.startswith("MLflow at sqlite:") for text in warnings] == [True]


def test_a_batch_that_fails_half_way_is_completed(tracker: Tracker, store: Store) -> None:
    shown = Shown(tracker, store, node("demo", **FOLLOWS))
    with closing(sqlite3.connect(store.root / "mlflow.db")) as database:
        database.execute(
            "CREATE TRIGGER fail BEFORE INSERT ON metrics WHEN NEW.step > 700 "
            "BEGIN SELECT abs(-9223372036854775808); END"
        )
        write(journal(store), rows(1, 1200))
        assert not tracker.flush()
        assert shown.steps("demo") == list(range(1, 501)), "the first batch of 1,000 metrics"
        database.execute("DROP TRIGGER fail")
    assert tracker.close() == []
    assert shown.steps("demo") == shown.steps("demo", "train/epoch") == list(range(1, 1201))


@pytest.mark.parametrize("failed", [False, True])
def test_what_stays_unsent_is_reported_once(
    store: Store, caplog: pytest.LogCaptureFixture, failed: bool
) -> None:
    """By whoever shows the results, or where there are none, in the log."""
    write(journal(store), rows(1, 2))
    with suppress(KeyError), tracked(store) as tracker:
        with closing(sqlite3.connect(store.root / "mlflow.db")) as database:
            database.execute("ALTER TABLE metrics RENAME TO gone")
        shown = Shown(tracker, store, node("demo", **FOLLOWS))
        if failed:
            raise KeyError
    (line, _) = tracker.unsent()
    assert line.startswith("MLflow lacks 2 rows of metrics")
    assert "of run 'demo': no such table" in line
    assert caplog.text.count(line) == failed
    assert list(unsent(store.root)) == [shown.folder]
    destination = Destination.read(shown.folder)
    assert destination
    assert destination.run_id == tracker.run_id


def test_a_stage_that_works_moves_and_is_done(
    tracker: Tracker, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracker_module, "SHORTEST_PAUSE", 0.01)
    shown = Shown(tracker, store, node("demo", **FOLLOWS))
    total, done = 400, store.root.joinpath(*STAGE)
    for row in rows(1, total):
        write(journal(store, work=not done.exists()), [row], "a")
        if row["step"] == total // 2:
            done.parent.mkdir()
            journal(store).parent.rename(done)
        time.sleep(0.001)
    assert tracker.close() == []
    assert shown.steps("demo") == list(range(1, total + 1))


def test_several_threads_may_send_at_once(tracker: Tracker, store: Store) -> None:
    children = [node(f"c{number}", journals=(("student", str(number)),)) for number in range(4)]
    shown = Shown(tracker, store, node("demo", *children))

    def work(number: int) -> None:
        for step in range(1, 21):
            write(journal(store, ("student", str(number))), rows(step, step), "a")
            assert tracker.flush()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tracker.close() == []
    assert sorted(runs(tracker)) == ["c0", "c1", "c2", "c3", "demo"]
    for number in range(4):
        assert shown.steps(f"c{number}") == list(range(1, 21))


DRIVER = """
import sys, time
from pathlib import Path
sys.path.append(sys.argv[2])
from trees import STAGE, Shown, node
from knife.store.store import Store
from knife.track import tracker
tracker.SHORTEST_PAUSE = 0.01
store = Store(Path(sys.argv[1]))
sending = tracker.Tracker(None, store, "exp", {})
Shown(sending, store, node("demo", node("student", journals=(STAGE,))))
time.sleep(600)
"""


def test_a_killed_driver_sends_nothing_twice(store: Store) -> None:
    write(journal(store), rows(1, 50))
    environment = os.environ | {"PYTHONPATH": str(Path(tracker_module.__file__).parents[2])}
    words = [sys.executable, "-c", DRIVER, str(store.root), str(TESTS)]
    driver = subprocess.Popen(words, env=environment)
    count, step, end = 0, 50, time.monotonic() + 300
    with closing(sqlite3.connect(store.root / "mlflow.db", timeout=20)) as database:
        while count < 300 and time.monotonic() < end:
            write(journal(store), rows(step + 1, step + 5), "a")
            step += 5
            time.sleep(0.01)
            (count,) = database.execute("SELECT count(*) FROM metrics").fetchone()
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert count >= 300
    # The stage was killed too, goes on from a checkpoint, and ends.
    write(journal(store), rows(1, 40) + rows(41, step + 100, seconds=2e9))
    with tracked(store) as tracker:
        shown = Shown(tracker, store, node("demo", node("student", **FOLLOWS)))
        assert tracker.close() == []
    assert len(runs(tracker)) == 2
    assert shown.steps("student") == list(range(1, step + 101))


def test_the_machine_is_measured_while_the_work_goes_on(tracker: Tracker, store: Store) -> None:
    shown = Shown(tracker, store, node("demo"))
    shown.change(row_file=f"runs/{shown.root.key}/{SYSTEM}")

    def measured() -> bool:
        return tracker.flush() and bool(shown.steps("demo", "system/cpu_utilization_percentage"))

    with system_metrics(shown.folder, seconds=0.05):
        wait_for(measured)
    found = runs(tracker)["demo"].data.metrics
    assert 0 < found["system/system_memory_usage_percentage"] < 100


def test_a_container_without_network_is_measured_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("psutil.net_io_counters", lambda: None)
    with system_metrics(tmp_path, seconds=0.05):
        wait_for((tmp_path / SYSTEM).is_file)
    row = json.loads((tmp_path / SYSTEM).read_text().splitlines()[0])
    assert "system/cpu_utilization_percentage" in row["metrics"]
    assert "system/network_receive_megabytes" not in row["metrics"]


def test_the_data_sets_of_a_run_are_noted_once_and_not_copied(
    tracker: Tracker, store: Store
) -> None:
    sets = tuple(
        DataSet("creatures", split, f"digest-{split}", f"/store/data/k/{split}.jsonl", 7, 3)
        for split in ("train", "test")
    )
    shown = Shown(tracker, store, node("demo", inputs=sets[:1]))
    for _ in range(2):
        assert tracker.flush()
        shown.change(inputs=sets)
    assert tracker.flush()
    found = runs(tracker)["demo"].inputs.dataset_inputs
    assert {(each.dataset.name, each.dataset.digest, each.tags[0].value) for each in found} == {
        ("creatures train", "digest-train", "train"),
        ("creatures test", "digest-test", "test"),
    }
    assert len(found) == 2
    assert json.loads(found[0].dataset.profile) == {"num_rows": 7, "rationales": 3}


def test_a_new_experiment_says_what_is_in_it(tracker: Tracker) -> None:
    tags = tracker.client.get_experiment(tracker.experiment_id).tags
    assert "knife.champion" in tags["mlflow.note.content"]


def test_of_two_processes_that_show_one_run_one_sends(store: Store) -> None:
    """The other takes over when the first has ended."""
    write(journal(store), rows(1, 5))
    with tracked(store) as first, tracked(store) as second:
        Shown(first, store, node("demo", **FOLLOWS))
        shown = Shown(second, store, node("demo", status="FINISHED", **FOLLOWS))
        assert second.run_id == first.run_id
        assert first.flush()
        assert second.flush()
        assert runs(first)["demo"].info.status == "RUNNING"
        assert first.close() == second.close() == []
    assert runs(second)["demo"].info.status == "FINISHED"
    assert shown.steps("demo") == [1, 2, 3, 4, 5]
    assert list(unsent(store.root)) == []


def test_a_store_that_cannot_be_read_for_a_moment_fails_nobody(
    tracker: Tracker, store: Store
) -> None:
    write(journal(store), rows(1, 5))
    shown = Shown(tracker, store, node("demo", **FOLLOWS))
    lost = journal(store).rename(store.root / "elsewhere")
    journal(store).mkdir()
    assert not tracker.flush()
    journal(store).rmdir()
    lost.rename(journal(store))
    assert tracker.close() == []
    assert shown.steps("demo") == [1, 2, 3, 4, 5]
