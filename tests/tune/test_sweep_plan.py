"""What a sweep will do: its trials in order, its teachers, and what is left out."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from command_fixtures import Command
from small_sweep import RATE, WEIGHT, errors, planned, write_sweep

from knife.plan.stage import TeacherStage
from knife.tune.dry_run import _teaching, dry_run
from knife.tune.search.sweep_plan import SweepPlan

FRACTIONS: dict[str, Any] = {
    "methods": {"choice": ["finetune", "knife"]},
    "data.fraction": {"choice": [0.5, 1.0]},
}


def teachers_of(plan: SweepPlan) -> list[set[str]]:
    """Return the keys of the teachers of each trial."""
    return [
        {stage.key for stage in each.stages if isinstance(stage, TeacherStage)}
        for each in plan.plans
    ]


def test_trials_that_differ_in_students_share_a_teacher(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    assert plan.trials == len(plan.plans) == len(plan.points or []) == 4
    assert len({member.student.key for each in plan.plans for member in each.members}) == 4
    assert [stage.kind for stage in plan.shared] == ["teacher", "states"]
    assert teachers_of(plan) == [{plan.teachers[0].key}] * 4
    assert not (tmp_path / "store" / "sweeps").exists()


def test_states_take_a_pass_for_each_trial_that_needs_new_ones(tmp_path: Path) -> None:
    layers = {"align.input.layers": {"grid": ["last", "all", [[1, 2]]]}}
    plan = planned(tmp_path, space=layers, search="grid", budget={})
    assert [stage.kind for stage in plan.shared] == ["teacher", "states", "states", "states"]
    kinds = [stage.kind for _, stage in _teaching(plan, set())]
    # The second trial computes two layers at once, and the third finds its layer there.
    assert kinds == ["teacher", "states", "states"]
    teacher = {("teacher", plan.teachers[0].key)}
    assert [stage.kind for _, stage in _teaching(plan, teacher)] == ["states", "states"]
    assert _teaching(plan, {(stage.kind, stage.key) for stage in plan.shared}) == []


def test_points_that_make_the_same_run_are_one_trial(tmp_path: Path) -> None:
    space = {"student": {"choice": [{"epochs": 1}, {}]}, "student.epochs": {"choice": [1, 3]}}
    plan = planned(tmp_path, space=space, budget={"trials": 32})
    assert plan.trials == 2
    assert {each.config.student.epochs for each in plan.plans} == {1, 3}


def test_a_trial_of_each_teacher_starts_first(tmp_path: Path) -> None:
    domains = {key: {"grid": domain["choice"]} for key, domain in FRACTIONS.items()}
    plan = planned(
        tmp_path, without="budget", search="grid", space=domains | {WEIGHT: {"grid": [1, 30]}}
    )
    teachers = teachers_of(plan)
    assert plan.trials == 8
    assert len(plan.teachers) == 2
    first, second = teachers[:2]
    assert (len(first), len(second)) == (1, 1)
    assert first != second
    # Then those that do not wait for a teacher, then those that do.
    assert teachers[2:6] == [set()] * 4
    assert all(len(keys) == 1 for keys in teachers[6:])
    configs = [plan.space.config(point) for point in plan.points or []]
    assert configs == [each.config for each in plan.plans]


def test_teachers_of_a_search_by_optuna(tmp_path: Path) -> None:
    tpe = {"search": "tpe", "budget": {"trials": 6}}
    plan = planned(tmp_path, **tpe)
    assert (plan.trials, plan.points, len(plan.teachers)) == (6, None, 1)
    assert plan.own_teachers == []
    plan = planned(tmp_path, **tpe, space=FRACTIONS)
    assert len(plan.teachers) == 2
    rate = {"teacher.learning_rate": {"loguniform": [1e-4, 1e-3]}}
    epochs = {"teacher.epochs": {"int": [1, 3]}, "student.epochs": {"int": [2, 5]}}
    plan = planned(tmp_path, **tpe, space=FRACTIONS | rate | epochs)
    assert plan.own_teachers == ["teacher.learning_rate", "teacher.epochs"]
    assert plan.epochs == 5


def test_combinations_that_are_not_planned_are_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tpe = {"search": "tpe", "budget": {"trials": 6}}
    assert planned(tmp_path, **tpe, space=FRACTIONS).notes == []
    monkeypatch.setattr("knife.tune.search.sweep_plan._MOST_TEACHERS", 3)
    plan = planned(tmp_path, **tpe, space=FRACTIONS)
    assert len(plan.plans) == 3
    (note,) = plan.notes
    assert note.startswith("4 combinations of values change teachers or their states, and only")
    assert note in dry_run(plan).notes


def test_refused_combinations_are_left_out(tmp_path: Path) -> None:
    space = {
        "methods": {"grid": ["finetune", "knife"]},
        "data.rationale": {"grid": ["given", "none"]},
    }
    plan = planned(tmp_path, without="budget", search="grid", space=space)
    assert plan.trials == 3
    ((point, reasons),) = plan.refused
    assert point == {"methods": "knife", "data.rationale": "none"}
    (reason,) = reasons
    assert "none of 40 training examples have a rationale" in reason
    assert point not in (plan.points or [])


def test_points_that_unlike_tokenizers_rule_out_are_left_out_with_their_reasons(
    tmp_path: Path,
) -> None:
    grid = {"align.input.tokens": {"grid": ["all", "words", "content", "mean"]}}
    changes: dict[str, Any] = {"without": "budget", "search": "grid", "space": grid}
    plan = planned(tmp_path, "model.student=tiny-llama", **changes)
    assert [*(plan.points or [])] == [{"align.input.tokens": n} for n in ("words", "mean")]
    assert [point["align.input.tokens"] for point, _ in plan.refused] == ["all", "content"]
    for _, (reason,) in plan.refused:
        assert "set it to words or to mean" in reason
    # The points share teacher and states.
    assert [stage.kind for stage in plan.shared] == ["teacher", "states"]


def test_what_is_wrong_with_every_trial_is_said_once(tmp_path: Path) -> None:
    (error,) = errors(tmp_path, "data.source=nowhere.jsonl")
    assert error.startswith("data.source: 'nowhere.jsonl' is neither a known source nor a file")
    grid = {"align.input.layers": {"grid": [[[1, 9]], [[9, 1]]]}, RATE: {"grid": [1e-3]}}
    found = errors(tmp_path, without="budget", search="grid", space=grid)
    assert [error.partition(": ")[0] for error in found] == [
        f"align.input.layers=[[1, 9]] {RATE}=0.001",
        f"align.input.layers=[[9, 1]] {RATE}=0.001",
    ]
    assert not (tmp_path / "store" / "sweeps").exists()


def test_a_sweep_of_models_too_large_for_the_memory_is_refused(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = tmp_path / "memory.max"
    limit.write_text("100000")
    monkeypatch.setattr("knife.plan.needs._LIMITS", [limit])
    for words in ([], ["--dry-run"]):
        ended = command("tune", write_sweep(tmp_path), *words)
        for model, error in zip(("teacher", "student"), ended.errors, strict=True):
            assert re.match(rf"model.{model}: \d+\.\d k parameters take \d\.\d MB", error)
        assert not (tmp_path / "store" / "sweeps").exists()


def test_points_that_leave_out_other_examples_are_not_compared(tmp_path: Path) -> None:
    for name in ("train", "dev", "test"):
        lines = [
            {"id": f"{name}{n}", "question": f"{'frog ' * words}{n} ?", "choices": ["a", "b"]}
            | {"answer": n % 2, "rationale": "a frog lays eggs ."}
            for n, words in enumerate((3, 4, 90, 5, 6, 7))
        ]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    space = {"data.max_tokens": {"choice": [64, 256]}}
    words = (f"data.source={tmp_path}", "data.too_long=drop", "teacher.batch_size=2")
    found = errors(tmp_path, *words, "student.batch_size=2", space=space)
    assert any(f.startswith("data.too_long: drop leaves out different dev") for f in found), found
