import json
import time
from pathlib import Path

from knife.train.follow import Follower
from knife.train.journal import Row


def row(step: int) -> Row:
    return {"step": step, "time": 1.0, "metrics": {"loss": 1.0}}


def write(folder: Path, last: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(row(step)) + "\n" for step in range(1, last + 1))
    (folder / "journal.jsonl").write_text("".join(lines))


def test_newest_row_of_each_stage(tmp_path: Path) -> None:
    write(tmp_path / "work" / "teacher-a", 3)
    write(tmp_path / "student" / "b", 7)
    with Follower(tmp_path, interval=0.01) as follower:
        assert follower.newest() == {}
        for stage in (("teacher", "a"), ("student", "b"), ("states", "not there yet")):
            follower.follow(*stage)
        end = time.monotonic() + 60
        while len(follower.newest()) < 2 and time.monotonic() < end:
            time.sleep(0.01)
        assert follower.newest() == {("teacher", "a"): row(3), ("student", "b"): row(7)}
        write(tmp_path / "work" / "teacher-a", 2)
        follower.poll()
        assert follower.newest()["teacher", "a"] == row(2)


def test_close_reads_what_came_last_and_stops(tmp_path: Path) -> None:
    follower = Follower(tmp_path, interval=60)
    follower.follow("teacher", "a")
    write(tmp_path / "work" / "teacher-a", 3)
    start = time.monotonic()
    follower.close()
    assert time.monotonic() - start < 50, "it has not waited for its interval"
    assert follower.newest() == {("teacher", "a"): row(3)}


def test_a_journal_that_cannot_be_read_does_not_stop_the_others(tmp_path: Path) -> None:
    (tmp_path / "work" / "teacher-a" / "journal.jsonl").mkdir(parents=True)
    write(tmp_path / "work" / "student-b", 1)
    with Follower(tmp_path, interval=60) as follower:
        follower.follow("teacher", "a")
        follower.follow("student", "b")
        follower.poll()
        assert follower.newest() == {("student", "b"): row(1)}


def test_waiting_costs_no_processor_time(tmp_path: Path) -> None:
    with Follower(tmp_path, interval=0.1) as follower:
        follower.follow("teacher", "a")
        before = time.process_time()
        time.sleep(1)
        assert time.process_time() - before < 0.3


def test_newest_has_the_last_value_of_every_metric(tmp_path: Path) -> None:
    folder = tmp_path / "work" / "student-a"
    write(folder, 2)
    with (folder / "journal.jsonl").open("a") as file:
        file.write('{"step": 3, "time": 2.0, "metrics": {"dev_accuracy": 0.5}}\n')
    with Follower(tmp_path, interval=60) as follower:
        follower.follow("student", "a")
        follower.poll()
        newest = follower.newest()["student", "a"]
    assert newest == {"step": 3, "time": 2.0, "metrics": {"loss": 1.0, "dev_accuracy": 0.5}}
