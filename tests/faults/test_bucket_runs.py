"""Runs on a bucket whose hosts are lost or whose server goes down: the results are those of a
plain folder.

A host is simulated by a separate cache folder: all that a host has of the store when it starts.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from pair import Pair, in_pair, make
from s3_server import S3
from small_run import SMALL, silent, small_config, wait_for

from knife.config.overrides import merge
from knife.pipeline.run import run
from knife.plan.plan import plan_run
from knife.plan.stage import StudentStage
from knife.store.store import Store

pytestmark = pytest.mark.faults

CHANGES: dict[str, Any] = {
    "data": {"world": {"train": 300, "dev": 40, "test": 100}},
    "student": {"epochs": 12},
    "scale": {"checkpoint_steps": 5},
}
PAIR = {"scale": {"workers": 2, "checkpoint_steps": 5}}
SECONDS = 300
AWAY_SECONDS = 5


def same(one: Store, other: Store) -> None:
    """Check that two stores have complete artifacts with equal weights, states and predictions."""
    compared = 0
    for stage in plan_run(small_config(one.address, **CHANGES)).stages:
        assert one.damage(stage.kind, stage.key) == []
        folder = one.path(stage.kind, stage.key)
        for path in folder.rglob("*"):
            if path.suffix == ".safetensors" or path.name in ("predictions.jsonl", "states.json"):
                twin = other.path(stage.kind, stage.key) / path.relative_to(folder)
                assert path.read_bytes() == twin.read_bytes(), path
                compared += 1
    assert compared > 5


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Return the store of an uninterrupted run in a plain folder, by one process."""
    folder = tmp_path_factory.mktemp("in-peace")
    run(small_config(folder, **CHANGES), silent)
    return Store(folder)


def work(context: Pair, folder: Path) -> None:
    url = (folder / "url").read_text()
    os.environ["KNIFE_CACHE"] = str(folder / f"host-{context.rank}")
    make(small_config(url, **CHANGES), context)


@pytest.fixture(scope="module")
def pair_reference(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Return the same by two workers."""
    folder = tmp_path_factory.mktemp("pair-in-peace")
    (folder / "url").write_text(str(folder / "store"))
    in_pair(work, folder)()
    return Store(folder / "store")


class Job:
    """A run that is started as a command on different hosts."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url
        self.drivers: list[psutil.Popen] = []

    def start(self, host: str, **scale: Any) -> psutil.Popen:
        values = merge(SMALL, merge(CHANGES, {"store": self.url, "scale": scale}))
        path = self.folder / f"run-{len(self.drivers)}.yaml"
        path.write_text(yaml.safe_dump(values))
        environment = os.environ | {"KNIFE_CACHE": str(self.folder / host)}
        with path.with_suffix(".out").open("w") as out, path.with_suffix(".err").open("w") as err:
            command = [sys.executable, "-m", "knife", "run", str(path), "--json"]
            self.drivers.append(psutil.Popen(command, stdout=out, stderr=err, env=environment))
        return self.drivers[-1]

    def read(self, suffix: str) -> str:
        return (self.folder / f"run-{len(self.drivers) - 1}{suffix}").read_text()

    def wait_for(self, condition: Callable[[], object]) -> None:
        def reached() -> bool:
            found = bool(condition())
            assert found or self.drivers[-1].poll() is None, self.read(".err")
            return found

        wait_for(reached, SECONDS, pause=0.05)

    def result(self) -> dict[str, Any]:
        assert self.drivers[-1].wait(SECONDS) == 0, self.read(".err")
        found: dict[str, Any] = json.loads(self.read(".out"))
        return found

    @cached_property
    def student(self) -> StudentStage:
        """Return the student's stage, planned once, since conditions use it many times a second."""
        (member,) = plan_run(small_config(self.url, **CHANGES)).members
        return member.student


@pytest.fixture
def job(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Job]:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("KNIFE_CACHE", str(tmp_path / "test"))
    job = Job(tmp_path, s3.url)
    yield job
    for driver in job.drivers:
        if driver.poll() is None:
            for process in [*driver.children(recursive=True), driver]:
                process.kill()


def checkpoints(s3: S3, job: Job) -> list[str]:
    return [n for n in s3.names(f"work/student-{job.student.key}") if "/part-" in n]


def test_a_host_that_is_lost_for_good_is_gone_on_from_the_bucket(
    job: Job, s3: S3, reference: Store
) -> None:
    driver = job.start("first")
    job.wait_for(partial(checkpoints, s3, job))
    driver.kill()
    driver.wait()
    assert not s3.names(f"student/{job.student.key}")
    shutil.rmtree(job.folder / "first")
    killed_at = time.time()
    job.start("second")
    made = [stage["kind"] for stage in job.result()["made"]]
    assert made[0] == "student"
    store = Store(s3.url)
    journal = store.read("student", job.student.key, "journal.jsonl").splitlines()
    rows = [json.loads(line) for line in journal]
    # Both tries wrote to it, each its own steps.
    assert [row["step"] for row in rows] == sorted(row["step"] for row in rows)
    assert rows[0]["time"] < killed_at < rows[-1]["time"]
    begun = json.loads(
        s3.files.cat_file(f"{s3.url}/journals/student-{job.student.key}.jsonl").splitlines()[0]
    )
    assert rows[0] == begun
    same(store, reference)
    assert s3.names("work") == []


def test_workers_of_ray_publish_into_the_bucket(job: Job, s3: S3, pair_reference: Store) -> None:
    job.start("first", launcher="ray", workers=2)
    result = job.result()
    assert {stage["kind"] for stage in result["made"]} == {
        "teacher",
        "states",
        "student",
        "evaluate",
    }
    assert result["store"] == s3.url
    same(Store(s3.url), pair_reference)
    assert s3.names("work") == []


def test_two_hosts_each_with_its_own_files_make_whole_artifacts(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pair_reference: Store
) -> None:
    (tmp_path / "url").write_text(s3.url)
    in_pair(work, tmp_path)()
    monkeypatch.setenv("KNIFE_CACHE", str(tmp_path / "third"))
    store = Store(s3.url)
    same(store, pair_reference)
    for host in ("host-0", "host-1"):
        (root,) = (tmp_path / host / "stores").iterdir()
        # Every host has fetched what later stages read.
        (states,) = (root / "states").iterdir()
        assert len(list(states.glob("shard-*.safetensors"))) >= 8
    assert s3.names("work") == []


def test_a_server_that_is_away_for_a_moment_is_waited_for(
    job: Job, s3: S3, reference: Store
) -> None:
    job.start("first")
    job.wait_for(partial(checkpoints, s3, job))
    s3.server.stop()
    time.sleep(AWAY_SECONDS)
    s3.server.start()
    job.result()
    same(Store(s3.url), reference)


def test_a_server_that_stays_away_ends_the_run_in_words(job: Job, s3: S3, reference: Store) -> None:
    job.start("first")
    job.wait_for(partial(checkpoints, s3, job))
    s3.server.stop()
    try:
        status = job.drivers[-1].wait(SECONDS)
    finally:
        s3.server.start()
    assert status == 1
    assert f"the bucket {s3.url} cannot be reached" in job.read(".err")
    assert not s3.names(f"student/{job.student.key}")
    job.start("first")
    job.result()
    same(Store(s3.url), reference)
