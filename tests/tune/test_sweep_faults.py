"""kill -9 of the driver and of a trial's worker in each phase: results are the reference's."""

import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow import MlflowClient
from small_run import wait_for
from small_sweep import RATE, trainings, watched, write_sweep

from knife.plan.plan import plan_run
from knife.store.store import Store
from knife.tune.command import plan_file
from knife.tune.search.history import read_history
from knife.tune.search.schedulers import judge
from knife.tune.search.sweep_plan import SweepPlan

pytestmark = pytest.mark.faults

SECONDS = 400
EPOCHS = 8
CHANGES: dict[str, Any] = {
    "space": {RATE: {"loguniform": [1e-4, 1e-2]}},
    "budget": {"trials": 3},
    "seeds": {"best": 1, "more": [1]},
    "final": {"seeds": [100]},
    # Enough steps that a kill comes in the middle, and a checkpoint in each epoch.
    "set": {
        "data.world.train": 100,
        "student.epochs": EPOCHS,
        "scale.checkpoint_steps": 5,
    },
}


@dataclass
class Job:
    """A sweep that is started as a command, repeatedly, on one store."""

    folder: Path
    changes: dict[str, Any]
    drivers: list[psutil.Popen] = field(default_factory=list)

    @property
    def store(self) -> Store:
        return Store(self.folder / "store")

    @property
    def sweep(self) -> Path:
        return self.folder / "store" / "sweeps" / "small"

    def plan(self) -> SweepPlan:
        return plan_file(write_sweep(self.folder, **self.changes), [])

    def start(self, *words: str) -> psutil.Popen:
        path, number = write_sweep(self.folder, **self.changes), len(self.drivers)
        out, err = (self.folder / f"{number}.{name}" for name in ("out", "err"))
        command = [sys.executable, "-m", "knife", "tune", str(path), "--json", *words]
        with out.open("w") as stdout, err.open("w") as stderr:
            driver = psutil.Popen(command, stdout=stdout, stderr=stderr, env=watched(self.folder))
        self.drivers.append(driver)
        return driver

    def output(self, name: str = "out") -> str:
        return (self.folder / f"{len(self.drivers) - 1}.{name}").read_text()

    def wait_for(self, condition: Callable[[], object]) -> None:
        """Poll until the condition holds, while the driver is running."""

        def reached() -> bool:
            found = bool(condition())
            assert found or self.drivers[-1].poll() is None, self.output("err")
            return found

        wait_for(reached, SECONDS, 0.01)

    def kill(self) -> float:
        """Kill the driver, wait until its workers have ended themselves, and return the time."""
        driver = self.drivers[-1]
        # Ray's agents, which do nothing by themselves, stay for a minute.
        below = [p for p in driver.children(recursive=True) if not p.name().endswith("Agent")]
        driver.kill()
        moment = time.time()
        driver.wait()
        wait_for(lambda: not any(map(alive, below)), SECONDS, 0.05)
        return moment

    def result(self) -> dict[str, Any]:
        """Wait for the driver's end, and return its JSON document."""
        status = self.drivers[-1].wait(SECONDS)
        assert status == 0, self.output("err")
        found: dict[str, Any] = json.loads(self.output())
        return found

    def published(self) -> dict[str, tuple[int, int]]:
        """Return the students in the store, and when their manifests and journals were written."""
        return {
            path.name: (
                (path / "manifest.json").stat().st_mtime_ns,
                (path / "journal.jsonl").stat().st_mtime_ns,
            )
            for path in (self.folder / "store" / "student").glob("*")
        }

    def under_way(self, pattern: str = "checkpoints/*/place.json") -> list[Path]:
        """Return students in training that have something to resume from."""
        return list((self.folder / "store" / "work").glob(f"student-*/{pattern}"))

    def pruned(self) -> set[int]:
        """The numbers of the trials that the scheduler has ended."""
        lines = read_history(self.sweep / "search")
        return {int(line["trial"].partition("-")[0]) for line in lines if "pruned" in line}

    def rows(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads((self.sweep / "trials.json").read_text())
        return found

    def tracked(self) -> dict[str, tuple[str, str]]:
        """Return id and status of every run in MLflow, by name."""
        client = MlflowClient(f"sqlite:///{self.folder / 'store' / 'mlflow.db'}")
        experiments = [e.experiment_id for e in client.search_experiments() if e.name == "knife"]
        runs = client.search_runs(experiments)
        found = {run.info.run_name: (run.info.run_id, run.info.status) for run in runs}
        assert len(found) == len(runs)
        return found


def alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def jobs_below(folder: Path, **changes: Any) -> Iterator[Job]:
    job = Job(folder, CHANGES | changes)
    yield job
    for driver in filter(alive, job.drivers):
        for process in [*driver.children(recursive=True), driver]:
            process.kill()


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    yield from jobs_below(tmp_path)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """Return the sweep without a kill."""
    job = Job(tmp_path_factory.mktemp("in-peace"), CHANGES)
    job.start()
    job.result()
    return job


def check_as_reference(job: Job, reference: Job, result: dict[str, Any]) -> None:
    """Check that scores, curves and verdict are the reference's, and that all runs have ended."""
    peaceful = json.loads((reference.sweep / "result.json").read_text())
    for row, expected in zip(job.rows(), reference.rows(), strict=True):
        assert row["times"].keys() == expected["times"].keys()
        clock = {"seconds": 0, "times": {}}
        assert row | clock == expected | clock
    assert result["final"]["verdict"] == peaceful["final"]["verdict"]
    assert result["best"]["number"] == peaceful["best"]["number"]
    tracked = job.tracked()
    assert set(tracked) == set(reference.tracked())
    assert {status for _, status in tracked.values()} == {"FINISHED"}
    names = [path.name for path in (job.folder / "store" / "work").iterdir()]
    assert [name for name in names if not name.startswith("ray-")] == []


def test_a_killed_worker_changes_nothing(job: Job, reference: Job) -> None:
    driver = job.start()
    job.wait_for(job.under_way)
    place = job.under_way()[0]
    key = place.parents[2].name
    for process in driver.children(recursive=True):
        if "RayTrainWorker" in " ".join(process.cmdline()):
            process.kill()
    killed_at = time.time()
    result = job.result()
    check_as_reference(job, reference, result)
    # It resumed from its checkpoint.
    assert trainings(job.folder)[key] == 2
    journal = job.folder / "store" / "student" / key.removeprefix("student-") / "journal.jsonl"
    times = [json.loads(line)["time"] for line in journal.read_text().splitlines()]
    assert times[0] < killed_at < times[-1]


def test_the_driver_killed_in_each_step_changes_nothing(job: Job, reference: Job) -> None:
    """Before the first trial, then in each step; and the first time, reports of trials are cut."""
    job.start()
    job.wait_for((job.sweep / "search" / "history.jsonl").exists)
    job.kill()
    assert job.published() == {}
    before: dict[str, tuple[int, int]] = {}
    tracked = job.tracked()
    for step in ("search", "seeds", "final"):
        job.start("--resume")
        first = step == "search"
        job.wait_for(lambda: (job.sweep / step).is_dir() and job.under_way())  # noqa: B023
        job.wait_for(lambda: (job.published() or not first) and job.under_way())  # noqa: B023
        job.kill()
        # A kill can truncate the last report of a trial.
        if first:
            path = job.sweep / step / "history.jsonl"
            path.write_bytes(path.read_bytes()[:-5])
        found = job.published()
        assert before.items() <= found.items()
        assert not (job.sweep / f"{step}.json").exists()
        before = found
        now = job.tracked()
        assert {name: now[name][0] for name in tracked} == {n: i for n, (i, _) in tracked.items()}
        tracked = now
    job.start("--resume")
    result = job.result()
    check_as_reference(job, reference, result)
    assert before.items() <= job.published().items()
    ended = job.tracked()
    assert {name: ended[name][0] for name in tracked} == {n: i for n, (i, _) in tracked.items()}
    counts = trainings(job.folder)
    assert [n for name, n in counts.items() if name.startswith("teacher-")] == [1]
    assert {counts[f"student-{key}"] for key in before} <= {1, 2}


@pytest.fixture
def judged(tmp_path: Path) -> Iterator[Job]:
    """Run six trials, of which ASHA prunes those with far too high rates."""
    yield from jobs_below(
        tmp_path,
        metric="dev_loss",
        space={RATE: {"loguniform": [1e-3, 3]}},
        first=[{RATE: rate} for rate in (4e-3, 2.0, 3e-3, 2.5, 5e-3, 6e-3)],
        budget={"trials": 6},
        scheduler={"name": "asha", "grace": 1, "reduction": 2},
        seeds={"search": [0]},
        final=None,
    )


def test_a_killed_driver_counts_no_trial_twice_and_judges_as_before(
    judged: Job, tmp_path: Path
) -> None:
    job = judged
    job.start()
    job.wait_for(lambda: job.published() and job.pruned() and job.under_way())
    job.kill()
    before, out, tracked = job.published(), job.pruned(), job.tracked()
    counts = trainings(job.folder)
    job.start("--resume")
    job.result()
    rows = job.rows()
    assert [row["number"] for row in rows] == [1, 2, 3, 4, 5, 6]
    plan = job.plan()
    assert [row["point"] for row in rows] == plan.points
    # "The best so far" also considers trials that finished before the kill.
    done = {row["number"] for row in rows if before.keys() & set(row["students"].values())}
    scores = {row["number"]: row["score"] for row in rows}
    for number in map(int, re.findall(r"trial (\d+): .*, the best so far ", job.output("err"))):
        assert number in done or scores[number] < min(scores[other] for other in done)
    # Pruned and finished trials keep their state and were not trained again.
    ended = {number for number, row in enumerate(rows, 1) if row["state"] == "pruned"}
    assert out <= ended
    assert before.items() <= job.published().items()
    after = trainings(job.folder)
    for row in rows:
        (member,) = plan_run(plan.space.config(row["point"])).members
        name = f"student-{member.student.key}"
        if member.student.key in before:
            assert after[name] == counts[name] == 1
        assert (row["state"] == "pruned") != (member.student.key in job.published())
    assert [n for name, n in after.items() if name.startswith("teacher-")] == [1]
    now = job.tracked()
    assert {name: now[name][0] for name in tracked} == {n: i for n, (i, _) in tracked.items()}
    assert {status for _, status in now.values()} == {"FINISHED"}
    check_decisions(job, plan, tmp_path)


def check_decisions(job: Job, plan: SweepPlan, folder: Path) -> None:
    """Check that a scheduler makes the same decisions when given all reports at once."""
    fresh = judge(plan.space.sweep, EPOCHS, folder)
    assert fresh
    ended = set()
    for line in read_history(job.sweep / "search"):
        if "report" in line:
            goes_on = fresh.goes_on(line["trial"], line["report"])
            # A trial may be judged at its last report too, which ends nothing.
            if not goes_on and not line["report"]["finished"]:
                ended.add(int(line["trial"].partition("-")[0]))
    assert ended == job.pruned()
