"""Hosts that die and networks that are cut, during real runs: results are those of a reference run.

A failure is injected while the student trains and has a checkpoint.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from host_cluster import Hosts, HostsRun, hosts, needs_hosts  # noqa: F401  (a fixture)
from job import SECONDS
from pair import Pair, in_pair, make
from ray_cluster import RAY
from small_run import SMALL, wait_for

from knife.config.overrides import merge
from knife.config.run import parse
from knife.plan.plan import plan_run
from knife.store.store import Store
from knife.train.context import PlainContext

pytestmark = [pytest.mark.faults, needs_hosts]

# The head, two working hosts and a spare.
HOSTS = 4
CHANGES: dict[str, Any] = {
    "methods": ["knife"],
    "data": {"world": {"train": 300, "dev": 40, "test": 100}},
    "student": {"epochs": 16},
    "scale": {"launcher": "ray", "workers": 2, "placement": "spread", "checkpoint_steps": 25},
}
SMALL_DEMO = [
    "data.world.train=120",
    "data.world.dev=20",
    "data.world.test=20",
    "teacher.epochs=2",
    "student.epochs=3",
    "scale.workers=2",
    "scale.placement=spread",
]
Recorded = Callable[[str, object], None]


def work(context: Pair, folder: Path) -> None:
    make(parse(merge(SMALL, CHANGES | {"store": str(folder / "store")})), context)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Return the store of an uninterrupted run by two workers."""
    folder = tmp_path_factory.mktemp("in-peace")
    in_pair(work, folder)()
    return Store(folder / "store")


@pytest.fixture
def run(hosts: Hosts, tmp_path: Path) -> Iterator[HostsRun]:  # noqa: F811
    run = HostsRun(tmp_path, CHANGES, hosts=hosts)
    yield run
    run.kill()


def rows(run: HostsRun) -> list[dict[str, Any]]:
    """Return the student's journal so far."""
    return run.rows(run.student)


def checkpoint_step(run: HostsRun) -> int:
    """Return the step of the newest checkpoint of the student; 0 without one."""
    return max(run.checkpoint_steps(run.student), default=0)


def train_until_checkpoint(run: HostsRun) -> dict[int, list[psutil.Process]]:
    """Start the run and wait for a checkpoint of the student; return its workers by host."""
    run.start()
    run.wait_for(lambda: checkpoint_step(run))
    # With an elastic range it may start before Ray knows the last host, and grow.
    full = [1] * run.config.scale.workers
    run.wait_for(lambda: list(map(len, run.hosts.workers().values())) == full, pause=0.2)
    return run.hosts.workers()


def trains_again(run: HostsRun, failed_at: float, step: int) -> float:
    """Wait until the training is past `step`; return the seconds since the failure."""
    later: list[float] = []

    def trained() -> bool:
        later[:] = [
            row["time"] for row in rows(run) if row["time"] > failed_at and row["step"] > step
        ]
        return bool(later)

    run.wait_for(trained, pause=0.1)
    return later[0] - failed_at


def resumed_from(run: HostsRun, step: int, before: list[dict[str, Any]], failed_at: float) -> None:
    """Check that training resumed from the checkpoint at `step`, repeating at most one interval."""
    kept = [row for row in rows(run) if row["time"] < failed_at]
    assert kept[-1]["step"] == step
    assert step >= before[-1]["step"] - CHANGES["scale"]["checkpoint_steps"]


def test_a_host_that_dies_is_replaced_by_a_spare(
    run: HostsRun, reference: Store, record_property: Recorded
) -> None:
    workers = train_until_checkpoint(run)
    lost = max(workers)
    before = rows(run)
    run.hosts("kill", str(lost))
    killed_at = time.time()
    step = checkpoint_step(run)
    seconds = trains_again(run, killed_at, step)
    assert lost not in run.hosts.workers()
    record_property("recovery", f"host killed, spare there: training again after {seconds:.0f} s")
    run.result()
    resumed_from(run, step, before, killed_at)
    run.same_as(reference)


def test_without_a_spare_a_run_shrinks_and_grows_back(
    run: HostsRun, record_property: Recorded
) -> None:
    elastic = {"scale": {"workers": 3, "min_workers": 2}, "student": {"epochs": 500}}
    run.changes = merge(CHANGES, elastic)
    workers = train_until_checkpoint(run)
    lost = max(workers)
    run.hosts("kill", str(lost))
    killed_at = time.time()
    step = checkpoint_step(run)
    seconds = trains_again(run, killed_at, step)
    assert sorted(run.hosts.workers()) == sorted(workers.keys() - {lost})
    record_property("recovery", f"host killed, no spare: two of three train after {seconds:.0f} s")
    run.hosts("start", str(lost))
    back_at = time.time()
    run.wait_for(lambda: run.hosts.workers().keys() == workers.keys(), pause=0.2)
    grown_at = time.time()
    seconds = trains_again(run, grown_at, checkpoint_step(run)) + grown_at - back_at
    record_property("recovery", f"host back: three of three train after {seconds:.0f} s")
    # It resumed: the losses are not those of a new training.
    trained = [row for row in rows(run) if "loss" in row["metrics"]]
    first = trained[0]["metrics"]["loss"]
    assert max(row["metrics"]["loss"] for row in trained if row["time"] > killed_at) < first


def test_a_host_that_is_cut_off_for_good_is_replaced_by_a_spare(
    run: HostsRun, reference: Store, record_property: Recorded
) -> None:
    workers = train_until_checkpoint(run)
    lost = max(workers)
    before = rows(run)
    run.hosts("cut", str(lost))
    cut_at = time.time()
    seconds = trains_again(run, cut_at + 5, step := checkpoint_step(run)) + 5
    record_property("recovery", f"cut for good, spare there: training again after {seconds:.0f} s")
    run.result()
    resumed_from(run, step, before, cut_at + 5)
    run.same_as(reference)


def test_a_job_that_is_started_again_after_its_driver_was_killed_goes_on(
    run: HostsRun, reference: Store, record_property: Recorded
) -> None:
    train_until_checkpoint(run)
    before = rows(run)
    run.drivers[-1].kill()
    killed_at = time.time()
    run.drivers[-1].wait()
    # Ray's workers notice within seconds that their driver has died; until then they continue.
    wait_for(lambda: not run.hosts.workers(), SECONDS, pause=0.2)
    gone_at, step = time.time(), checkpoint_step(run)
    run.start()
    seconds = trains_again(run, gone_at, step) + gone_at - killed_at
    record_property("recovery", f"driver killed, started again: training after {seconds:.0f} s")
    result = run.result()
    assert {stage["kind"] for stage in result["made"]} == {"student", "evaluate"}
    resumed_from(run, step, before, gone_at)
    run.same_as(reference)


def test_a_store_that_one_host_has_for_itself_is_refused(run: HostsRun, tmp_path: Path) -> None:
    """The driver's host and two of its workers share the folder, the third has a different one."""
    run.hosts("kill", "3")
    run.hosts("start", "3", "--own-folder", str(tmp_path))
    run.changes = merge(CHANGES, {"scale": {"workers": 3}})
    driver = run.start()
    assert driver.wait(SECONDS) == 2
    error = run.output(".err").splitlines()[-1]
    address = run.hosts("address", "3")
    assert error == (
        f"error: store: {run.store} on {run.hosts.name}-3 ({address}) is not the folder that the "
        "run was started with; give a folder that all hosts mount at this path, or a bucket"
    )
    assert not (run.store / "teacher").exists()
    assert [path.name for path in (run.store / "work").iterdir()] == []
    run.hosts("kill", "3")


def test_both_hosts_have_their_share_of_every_job(run: HostsRun, tmp_path: Path) -> None:
    """As sent by `knife submit` and by `ray job submit`; the second finds everything done."""
    (tmp_path / "folder").mkdir()
    words = ["run", "demo", "methods=[knife]", "seeds=[0]", *SMALL_DEMO, f"store={run.store}"]
    knife = [sys.executable, "-m", "knife", "submit", "--address", run.hosts.dashboard, "--"]
    ray = [RAY, "job", "submit", "--address", run.hosts.dashboard, "--working-dir", "."]
    for command in ([*knife, *words], [*ray, "--", "python", "-m", "knife", *words]):
        done = subprocess.run(
            command,
            cwd=tmp_path / "folder",
            env=run.hosts.environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "verdict, config and report: " in done.stdout
    assert "nothing was trained" in done.stdout
    for kind, examples in (("teacher", 240), ("states", 120), ("student", 360)):
        (path,) = (run.store / kind).glob("*/workers.json")
        shares = json.loads(path.read_text())
        assert [share["rank"] for share in shares] == [0, 1]
        assert len({share["host"] for share in shares}) == 2
        assert all(share["host"].startswith(run.hosts.name) for share in shares)
        assert sum(share["examples"] for share in shares) == examples
        assert min(share["examples"] for share in shares) >= 0.4 * examples


def test_slots_of_all_hosts_are_used_at_once_and_one_host_is_lost(
    run: HostsRun, tmp_path: Path
) -> None:
    """Stages of one worker each, side by side on three hosts: two of them finish the run."""
    run.changes = merge(
        CHANGES,
        {
            "methods": ["finetune", "knife"],
            "seeds": [0, 1, 2],
            "student": {"epochs": 16},
            "scale": {"workers": 1, "placement": "pack", "parallel": "auto"},
        },
    )
    with PlainContext() as context:
        make(parse(merge(SMALL, run.changes | {"store": str(tmp_path / "alone")})), context)
    run.start(parallel="auto")
    plan = plan_run(run.config)
    run.wait_for(lambda: len(run.hosts.workers()) == 3, pause=0.2)
    students = [member.student for member in plan.members]
    run.wait_for(lambda: sum(map(run.under_way, students)) >= 2 and len(made_on(run)) == 3)
    lost = max(run.hosts.workers())
    run.hosts("kill", str(lost))
    result = run.result()
    assert [method["seeds"] for method in result["verdict"]["methods"]] == [3, 3]
    run.same_as(Store(tmp_path / "alone"))


def made_on(run: HostsRun) -> set[str]:
    """Return the hosts on which stages were made, by what these say of their workers."""
    found = [json.loads(path.read_text()) for path in run.store.glob("*/*/workers.json")]
    return {share["host"] for shares in found for share in shares}


def test_a_network_that_is_cut_for_30_seconds_is_waited_for(
    run: HostsRun, reference: Store, record_property: Recorded
) -> None:
    """With the settings of cluster/hosts.sh."""
    run.hosts.start_patiently()
    workers = train_until_checkpoint(run)
    cut = str(max(workers))
    cut_at = time.time()
    run.hosts("cut", cut)
    # Real time, since the promise is in seconds.
    wait_for(lambda: time.time() - cut_at >= 30, pause=0.1)
    silent = [row["time"] for row in rows(run)]
    assert silent[-1] < cut_at + 5
    run.hosts("heal", cut)
    seconds = trains_again(run, cut_at + 30, rows(run)[-1]["step"])
    assert run.hosts.workers() == workers
    record_property("recovery", f"cut for 30 s: training again {seconds:.0f} s after it was healed")
    run.result()
    assert [row["time"] for row in rows(run)][: len(silent)] == silent
    # By the same workers from the first step to the last.
    shares = json.loads((run.store / "student" / run.student.key / "workers.json").read_text())
    assert sum(share["examples"] for share in shares) == 300 * CHANGES["student"]["epochs"]
    run.same_as(reference)
