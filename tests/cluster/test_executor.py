"""Stages side by side on Ray, in two slots of one worker each."""

import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
from small_run import silent, small_config

from knife.config.run import RunConfig
from knife.config.scale import Scale
from knife.core.errors import NotFiniteError, UserError
from knife.launch.executor import Executor
from knife.launch.groups import open_groups
from knife.launch.session import ENVIRONMENT
from knife.launch.slot import Slot, timeouts
from knife.pipeline.run import publish_data, run
from knife.plan.events import Failed, Made, Started
from knife.plan.pace import Pace
from knife.plan.plan import Plan, plan_run
from knife.plan.stage import StudentStage
from knife.store.store import Store
from knife.train.in_process import in_process

CHANGES = {"methods": ["finetune", "knife"], "track": None}
RAY = {"launcher": "ray", "parallel": 2}

pytestmark = pytest.mark.usefixtures("ray_session")


def published(config: RunConfig) -> Plan:
    """Return the plan of a run whose data are in the store."""
    plan = plan_run(config)
    publish_data(Store(config.store), plan)
    return plan


def files(store: Path) -> dict[str, bytes]:
    """Return weights and predictions in a store, by name."""
    names = ("**/model.safetensors", "evaluate/*/predictions.jsonl", "states/*/*.safetensors")
    return {
        str(path.relative_to(store)): path.read_bytes()
        for name in names
        for path in store.glob(name)
    }


def test_results_are_those_of_one_after_the_other(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    alone = run(small_config(one, seeds=[0, 1], **CHANGES), silent)
    beside = run(small_config(other, scale=RAY, seeds=[0, 1], **CHANGES), silent)
    made = files(one)
    assert len(made) > 10
    assert made == files(other)
    assert beside.verdict == alone.verdict


@pytest.mark.parametrize("scale", [RAY, {"launcher": "ray", "workers": 2}], ids=["two", "pair"])
def test_a_student_that_diverges_ends_alone(tmp_path: Path, scale: dict[str, Any]) -> None:
    """In one of two slots, and in the only one, whose workers are replaced."""
    wild = {"name": "wild", "method": "finetune", "student": {"learning_rate": 3e37}}
    config = small_config(tmp_path, scale=scale, track=None, methods=[wild, "finetune"])
    result = run(config, silent)
    assert len(result.failures) == 1
    assert result.failures[0].startswith("wild seed 0: the ")
    assert [method.method for method in result.verdict.methods] == ["finetune"]
    assert "Missing, since they could not be made: wild seed 0." in result.verdict.notes
    assert (result.folder / "report.html").is_file()


def test_an_error_of_the_user_ends_the_others_with_checkpoints(tmp_path: Path) -> None:
    config = small_config(tmp_path, scale=RAY, methods=["finetune"], seeds=[0, 1, 2])
    plan = published(config)
    short, long, lost = [stage for stage in plan.stages if isinstance(stage, StudentStage)]
    many = {"epochs": 2000, "evaluate_epochs": 2000}
    long = replace(long, training=long.training.model_copy(update=many))
    lost = replace(lost, model=replace(lost.model, folder=tmp_path / "gone"))
    executor = Executor(tmp_path, config.scale, Pace(plan.data), width=2)
    executor.add([short, long])
    seen = set()

    def make() -> None:
        with executor:
            for event in executor:
                if isinstance(event, Failed):
                    raise event.error
                assert isinstance(event, Started | Made)
                seen.add((type(event), event.work.stages[0].key))
                # One is done and one is under way.
                if {(Made, short.key), (Started, long.key)} == seen - {(Started, short.key)}:
                    executor.add([lost])

    with pytest.raises(UserError, match=r"gone has no config\.json"):
        make()
    assert list(tmp_path.glob(f"work/student-{long.key}/checkpoints/*/place.json"))
    assert not Store(tmp_path).has("student", long.key)


def test_in_this_process_the_others_are_made_too(tmp_path: Path) -> None:
    plan = published(small_config(tmp_path, methods=["finetune"], seeds=[0, 1]))
    wild = plan.stages[0]
    assert isinstance(wild, StudentStage)
    training = wild.training.model_copy(update={"learning_rate": 3e37})
    stages = [replace(wild, training=training), *plan.stages[1:]]
    with closing(in_process(stages, tmp_path, plan.config.scale)) as found:
        failed = [event for event in found if isinstance(event, Failed)]
    assert isinstance(failed[0].error, NotFiniteError)
    assert [event.work.label for event in failed] == ["finetune seed 0", "test finetune seed 0"]
    assert Store(tmp_path).has("student", plan.members[1].student.key)


@pytest.mark.faults
def test_many_worker_groups_start_at_once(tmp_path: Path) -> None:
    """Their controllers are threads of one process, whose log they share."""
    scale, number = Scale(launcher="ray"), 6
    name, address = "knife-many", Store(tmp_path).address
    groups = open_groups(name, number, ENVIRONMENT | timeouts(scale))
    for n in range(number):
        groups.start.remote(
            Slot(
                number=n,
                start=n + 1,
                groups=name,
                address=address,
                scale=scale,
                name=f"ray-{n}",
                mark=None,
                cpus=0.1,
                judged=False,
            )
        )
    ready, end = set[int](), time.monotonic() + 300
    while len(ready) < number and time.monotonic() < end:
        posts = ray.get(groups.receive.remote(5.0))
        assert {what for _, _, what, _ in posts} <= {"ready"}
        ready |= {slot for slot, *_ in posts}
    ray.kill(groups)
    assert ready == set(range(number))
