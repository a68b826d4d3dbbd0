"""Trainings that get SIGTERM, hang, or run out of disk: the same command resumes them.

The commands run as a user runs them; a failure is injected while the student trains.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from job import SECONDS, Job, gone, workers_below
from pair import Pair, in_pair, make
from small_run import small_config, wait_for

from knife.plan.stage import Stage
from knife.store.store import Store
from knife.train.context import PlainContext

pytestmark = pytest.mark.faults

CHANGES: dict[str, Any] = {
    "methods": ["knife"],
    "data": {"world": {"train": 300, "dev": 40, "test": 100}},
    "student": {"epochs": 8},
    "scale": {"checkpoint_steps": 20},
}
Recorded = Callable[[str, object], None]


def work(context: Pair, folder: Path) -> None:
    make(small_config(folder / "pair", **CHANGES), context)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Store]:
    """Return the stores of uninterrupted runs by one process and by two workers."""
    folder = tmp_path_factory.mktemp("in-peace")
    wait = in_pair(work, folder)
    with PlainContext() as context:
        make(small_config(folder / "alone", **CHANGES), context)
    wait()
    return {1: Store(folder / "alone"), 2: Store(folder / "pair")}


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Job]:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    job = Job(tmp_path, CHANGES)
    yield job
    job.kill()


def trains_again(job: Job, stage: Stage, since: float) -> float:
    """Wait for a newer row of the journal, and return how many seconds that took."""
    job.wait_for(lambda: any(row["time"] > since for row in job.rows(stage)), pause=0.1)
    times = (float(row["time"]) for row in job.rows(stage))
    return min(seconds for seconds in times if seconds > since) - since


@pytest.mark.parametrize(("launcher", "workers"), [("process", 1), ("ray", 2)])
def test_a_driver_told_to_end_leaves_a_checkpoint_and_143(
    job: Job, reference: dict[int, Store], launcher: str, workers: int
) -> None:
    student = job.stages()["student"]
    # Far from any periodic checkpoint.
    driver = job.start(launcher=launcher, workers=workers, checkpoint_steps=10_000)
    job.wait_for(lambda: len(job.rows(student)) > 2)
    step = job.rows(student)[-1]["step"]
    driver.send_signal(signal.SIGTERM)
    assert driver.wait(SECONDS) == 143, job.output(".err")
    assert "terminated" in job.output(".err")
    (kept,) = job.checkpoint_steps(student)
    assert kept >= step
    job.start(launcher=launcher, workers=workers, checkpoint_steps=10_000)
    job.result()
    assert min(row["step"] for row in job.rows(student) if "note" not in row) <= step
    job.same_as(reference[workers])


def test_a_worker_told_to_end_leaves_a_checkpoint_and_the_run_goes_on(
    job: Job, reference: dict[int, Store]
) -> None:
    student = job.stages()["student"]
    job.start(launcher="ray", workers=2, checkpoint_steps=10_000)
    group = job.workers(2)
    job.wait_for(lambda: len(job.rows(student)) > 2)
    step, told_at = job.rows(student)[-1]["step"], time.time()
    group[1].send_signal(signal.SIGTERM)
    job.wait_for(lambda: gone(group))
    job.result()
    later = [row["step"] for row in job.rows(student) if row["time"] > told_at]
    # No step was repeated.
    assert min(later) >= step
    job.same_as(reference[2])


def test_a_worker_that_hangs_is_found_and_replaced(
    job: Job, reference: dict[int, Store], record_property: Recorded
) -> None:
    student = job.stages()["student"]
    job.start(launcher="ray", workers=2, hang_seconds=10)
    group = job.workers(2)
    job.wait_for(lambda: job.checkpoint_steps(student))
    hung_at = time.time()
    group[1].send_signal(signal.SIGSTOP)
    # Its last row may appear a moment later.
    seconds = trains_again(job, student, hung_at + 5)
    record_property("recovery", f"worker hangs: training again after {seconds + 5:.0f} s")
    job.result()
    assert gone(group)
    job.same_as(reference[2])


def test_a_full_disk_ends_the_run_and_a_larger_one_lets_it_go_on(
    job: Job, reference: dict[int, Store]
) -> None:
    if os.geteuid():
        pytest.skip("a small disk is a tmpfs, which needs root")
    student = job.stages()["student"]
    job.store.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64M", "knife-test", job.store], check=True)
    try:
        driver = job.start(launcher="process")
        job.wait_for(lambda: job.checkpoint_steps(student))
        filler = job.store / "filler"
        with filler.open("wb") as file:
            while psutil.disk_usage(str(job.store)).free:
                try:
                    file.write(b"x" * 4096)
                    file.flush()
                except OSError:
                    break
        assert driver.wait(SECONDS) == 2
        err = job.output(".err")
        assert "the disk is full; free space or give another store" in err
        assert "Traceback" not in err
        kept = job.checkpoint_steps(student)
        assert kept
        filler.unlink()
        job.start(launcher="process")
        job.result()
        assert job.rows(student)[0]["step"] <= kept[0]
        job.same_as(reference[1])
    finally:
        job.kill()
        wait_for(lambda: subprocess.run(["umount", job.store]).returncode == 0, 20, pause=0.5)


def test_a_loss_that_is_no_number_ends_a_run_at_once(job: Job) -> None:
    job.changes = CHANGES | {"student": {"epochs": 8, "learning_rate": 3e37}}
    driver = job.start(launcher="ray", workers=2)
    workers: set[int] = set()

    def ended() -> bool:
        with suppress(psutil.Error):
            workers.update(process.pid for process in workers_below(driver))
        return driver.poll() is not None

    wait_for(ended, SECONDS, pause=0.2)
    assert driver.returncode == 1
    err = job.output(".err")
    assert "is not finite at step" in err
    assert "examples of that batch: " in err
    assert "last good checkpoint: " in err
    # Not retried: the workers that replace the first two find their note.
    assert 2 <= len(workers) <= 4
