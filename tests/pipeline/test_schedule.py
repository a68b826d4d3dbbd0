"""The order in which stages are made, without making any."""

from collections.abc import Callable
from pathlib import Path

import pytest
from small_run import small_config

from knife.core.errors import NotFiniteError, WorkFailedError
from knife.plan.events import Failed, failures
from knife.plan.pace import Pace
from knife.plan.plan import Plan, plan_run
from knife.plan.schedule import Schedule, Work
from knife.plan.stage import Stage, inputs


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Return the plan of a run with every kind of stage."""
    align = {"output": {"weight": 1.0}}
    return plan_run(
        small_config(tmp_path, methods=["finetune", "knife"], seeds=[0, 1], align=align)
    )


def scheduled(plan: Plan, seconds: Callable[[Stage], float]) -> Schedule:
    found = Schedule(seconds)
    found.add(plan.stages)
    return found


def labels(works: list[Work]) -> list[str]:
    return [work.label for work in works]


def test_what_has_the_longest_way_to_the_end_comes_first(plan: Plan) -> None:
    schedule = scheduled(plan, lambda _: 1.0)
    assert labels(schedule.ready()) == ["teacher", "finetune seed 0", "finetune seed 1"]
    # A student that takes longer than the teacher and all that needs it.
    schedule = scheduled(plan, lambda stage: 9.0 if stage.label == "finetune seed 1" else 1.0)
    assert labels(schedule.ready()) == ["finetune seed 1", "teacher", "finetune seed 0"]


def test_everything_is_taken_once_after_what_it_reads(plan: Plan) -> None:
    schedule, made, taken = scheduled(plan, lambda _: 1.0), set[tuple[str, str]](), list[Work]()
    while work := schedule.take():
        assert work not in taken
        assert {place for stage in work.stages for place in inputs(stage)} <= made
        taken.append(work)
        schedule.done(work)
        made |= set(work.artifacts)
    assert made == {(stage.kind, stage.key) for stage in plan.stages}
    assert schedule.unfinished() == []
    # Both parts of the teacher's states are computed in one pass.
    assert "teacher states, 2 parts" in labels(taken)


def test_what_needs_a_failed_stage_fails_with_it(plan: Plan) -> None:
    schedule = scheduled(plan, lambda _: 1.0)
    teacher = schedule.take()
    assert teacher
    finetune = schedule.take()
    assert finetune
    error = NotFiniteError("teacher: the loss is not finite")
    found = list(failures(schedule, teacher, error))
    assert found[0] == Failed(teacher, error)
    assert {type(each.error) for each in found[1:]} == {WorkFailedError}
    lost = [work for each in found[1:] for work in [each.work]]
    assert len(lost) == len({id(work) for work in lost})
    assert {label for label in labels(lost) if "knife" in label} == {
        "knife seed 0",
        "knife seed 1",
        "test knife seed 0",
        "test knife seed 1",
    }
    # The others go on.
    assert finetune.state == "under way"
    assert labels(schedule.ready()) == ["finetune seed 1"]


def test_what_is_put_back_or_added_later_is_made_too(plan: Plan) -> None:
    schedule = Schedule(lambda _: 1.0)
    schedule.add(stage for stage in plan.stages if stage.kind == "teacher")
    teacher = schedule.take()
    assert teacher
    assert schedule.take() is None
    schedule.put_back(teacher)
    assert schedule.take() is teacher
    schedule.add(stage for stage in plan.stages if stage.kind == "states")
    assert schedule.take() is None
    schedule.done(teacher)
    states = schedule.take()
    assert states
    assert states.stages[0].kind == "states"


def test_no_more_slots_are_of_use_than_stages_are_ever_ready(plan: Plan) -> None:
    # Teacher and two students of finetune; then at most their two evaluations, the teacher's two,
    # and the states.
    assert scheduled(plan, lambda _: 1.0).width() == 5
    assert Schedule(lambda _: 1.0).width() == 0
    chain = Schedule(lambda _: 1.0)
    student = next(stage for stage in plan.stages if stage.label == "finetune seed 0")
    chain.add([student, *(s for s in plan.stages if s.label == "test finetune seed 0")])
    assert chain.width() == 1


def test_a_pace_is_that_of_the_kind_or_else_of_all(plan: Plan) -> None:
    pace = Pace(plan.data)
    teacher, *_ = plan.stages
    student = next(stage for stage in plan.stages if stage.kind == "student")
    # 40 training examples, 20 of dev and 20 of test, two epochs, three passes for a step.
    assert pace.passes(student) == 2 * 40 * 3 + 2 * 20
    assert pace.rate(student) is None
    assert pace.seconds(student) > pace.seconds(plan.stages[-1])
    pace.add(teacher, 28.0)
    assert pace.rate(student) == pace.rate(teacher) == pytest.approx(0.1)
    pace.add(student, 14.0)
    assert pace.seconds(student) == pytest.approx(14.0)
    assert pace.seconds(teacher) == pytest.approx(28.0)
