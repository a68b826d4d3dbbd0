"""kill -9 of a worker and of the driver in each stage: results are those of a reference run.

The commands run as a user runs them. A process is killed when the store's work folder shows that
the stage is in progress and, if the stage can be resumed, that there is something to resume from.
"""

import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from job import SECONDS, Job, gone, workers_below
from pair import Pair, in_pair, make
from recorded import journal_points, points, run_tree, timeless
from small_run import small_config, wait_for

from knife.config.run import RunConfig
from knife.plan.plan import plan_run
from knife.plan.stage import Stage
from knife.store.store import Store
from knife.train.context import PlainContext

# These take minutes, so they are separate from the other tests: make faults.
pytestmark = pytest.mark.faults

# Frequent checkpoints, and enough examples that states and evaluations take some time.
CHANGES: dict[str, Any] = {
    "methods": ["knife"],
    "data": {"world": {"train": 300, "dev": 40, "test": 600}},
    "scale": {"checkpoint_steps": 5},
}
KINDS = ("teacher", "states", "student", "evaluate")


def config(store: Path) -> RunConfig:
    return small_config(store, **CHANGES)


def work(context: Pair, folder: Path) -> None:
    make(config(folder / "pair"), context)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Store]:
    """Return the stores of uninterrupted runs, by one process and by two workers."""
    folder = tmp_path_factory.mktemp("in-peace")
    wait = in_pair(work, folder)
    with PlainContext() as context:
        make(config(folder / "alone"), context)
    wait()
    return {name: Store(folder / name) for name in ("alone", "pair")}


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Job]:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    job = Job(tmp_path, CHANGES)
    yield job
    job.kill()


def test_a_worker_killed_in_each_stage_changes_nothing(
    job: Job, reference: dict[str, Store], record_property: Callable[[str, object], None]
) -> None:
    """Four kills in one run: more failures than Ray Train may have in a row."""
    stages = job.stages()
    job.start(launcher="ray", workers=2)
    killed_at = {}
    for number, kind in enumerate(KINDS):
        group = job.workers(2)
        job.wait_for(partial(job.under_way, stages[kind]))
        group[number % 2].kill()
        killed_at[kind] = time.time()
        # The other one cannot continue alone, so the stage stays unfinished.
        job.wait_for(partial(gone, group))
        assert not job.published(stages[kind])
    result = job.result()
    for kind in ("teacher", "student"):
        seconds = min(t for t in times(job, stages[kind]) if t > killed_at[kind]) - killed_at[kind]
        record_property("recovery", f"worker killed, {kind}: training again after {seconds:.0f} s")
    check_results(job, reference["pair"], result)
    check_resumed(job, stages, killed_at)


def test_a_stage_whose_workers_are_killed_again_and_again_fails_in_words(job: Job) -> None:
    """As the system does if memory runs out."""
    job.changes = CHANGES | {"teacher": {"epochs": 1000}}
    driver = job.start(launcher="ray", checkpoint_steps=100_000)
    teacher, killed_at = job.stages()["teacher"], 0.0
    for _ in range(4):
        job.wait_for(lambda: any(row["time"] > killed_at for row in job.rows(teacher)))  # noqa: B023
        for worker in workers_below(driver):
            worker.kill()
        killed_at = time.time()
    assert driver.wait(SECONDS) == 1
    *_, last = job.output(".err").splitlines()
    assert last.startswith("error: ")
    assert last.endswith(
        "teacher: its workers were killed 4 times without any progress, often for lack of memory: "
        "lower scale.parallel, or teacher.batch_size"
    )


def test_the_driver_killed_in_each_stage_changes_nothing(
    job: Job, reference: dict[str, Store]
) -> None:
    """In the driver's own process for the first stages, with Ray for the last one."""
    stages = job.stages()
    killed_at = {}
    for kind in KINDS:
        driver = job.start(launcher="ray" if kind == "evaluate" else "process")
        job.wait_for(partial(job.under_way, stages[kind]))
        workers = workers_below(driver)
        assert len(workers) == (kind == "evaluate")
        driver.kill()
        killed_at[kind] = time.time()
        assert not job.published(stages[kind])
        driver.wait()
        # Ray's workers notice within two seconds that their driver has died. Until then they
        # continue, holding their lock, and may even finish the stage; the next driver waits for it.
        wait_for(partial(gone, workers), SECONDS)
        with Store(job.store).lock(kind, stages[kind].key).acquire(timeout=60):
            pass
    job.start(launcher="process")
    result = job.result()
    assert {stage["kind"] for stage in result["made"]} <= {"evaluate"}
    check_results(job, reference["alone"], result)
    check_resumed(job, stages, killed_at)


def times(job: Job, stage: Stage) -> list[float]:
    """Return when the rows of a stage's journal were written."""
    path = job.store / stage.kind / stage.key / "journal.jsonl"
    return [json.loads(line)["time"] for line in path.read_text().splitlines()]


def check_results(job: Job, reference: Store, result: dict[str, Any]) -> None:
    """Check that artifacts are complete, and that results and metrics are the reference's."""
    store = Store(job.store)
    plan = plan_run(config(job.store))
    for stage in plan.stages:
        assert store.damage(stage.kind, stage.key) == []
        folder, other = (s.path(stage.kind, stage.key) for s in (store, reference))
        # The reference stages were made without a run, which would write the cards.
        names = [
            sorted(p.relative_to(f) for p in f.rglob("*") if p.name != "README.md")
            for f in (folder, other)
        ]
        assert names[0] == names[1]
        for name in names[0]:
            # Except the seconds that a training took.
            if name.suffix == ".safetensors" or name.name in ("predictions.jsonl", "states.json"):
                assert (folder / name).read_bytes() == (other / name).read_bytes()
    # Ray's folder is removed by the next start with Ray.
    assert [p for p in (job.store / "work").iterdir() if not p.name.startswith("ray-")] == []
    parent, nested = run_tree(result["mlflow"]["uri"], result["mlflow"]["run_id"])
    assert parent.info.status == "FINISHED"
    assert {run.info.status for run in nested.values()} == {"FINISHED"}
    (member,) = plan.members
    found = points(result["mlflow"]["uri"], nested["knife seed 0"])
    assert timeless(found) == timeless(journal_points(store, member.student, member.evaluate))
    rates = [step for name, step, _ in found if name == "train/examples_per_second"]
    assert len(set(rates)) == len(rates) >= 6
    assert plan.teacher is not None
    found = points(result["mlflow"]["uri"], nested["teacher"])
    trained = [point for point in timeless(found) if "_rationale" not in point[0]]
    assert trained == timeless(journal_points(store, plan.teacher))


def check_resumed(job: Job, stages: dict[str, Stage], killed_at: dict[str, float]) -> None:
    """Check that trainings resumed from checkpoints: their journals begin before the kill."""
    for kind in ("teacher", "student"):
        rows = times(job, stages[kind])
        assert rows[0] < killed_at[kind] < rows[-1]
    # Shards from before the kill were not computed again.
    shards = (job.store / "states" / stages["states"].key).glob("shard-*.safetensors")
    written = [path.stat().st_mtime for path in shards]
    assert min(written) < killed_at["states"] < max(written)
