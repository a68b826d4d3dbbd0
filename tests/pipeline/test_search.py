"""`{search: […]}` in a run config: how it is read, merged and replaced, and its trials."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_run import SMALL, small_config

from knife.config.overrides import merge, nested, read_overrides
from knife.config.run import Gate, RunConfig, parse
from knife.core.errors import UserError
from knife.plan.plan import plan_run
from knife.plan.sources import SourceReader
from knife.plan.trials import TrialPlan, plan_trials
from knife.tune.search.settings import Sweep
from knife.tune.search.space import Space

# As YAML reads them: numbers without a dot are texts.
RATES: dict[str, Any] = {"learning_rate": {"search": ["1e-4", 3e-4, 1e-3]}}
WEIGHTS: dict[str, Any] = {"input": {"weight": {"search": [3, 30]}}}


def test_the_first_value_stands_for_all_until_they_are_tried(tmp_path: Path) -> None:
    config = small_config(
        tmp_path, student=RATES, align={"input": {"layers": {"search": [[[1, 3]], "all"]}}}
    )
    assert config.student.learning_rate == 1e-4
    assert config.align.input.layers == [(1, 3)]
    assert config.search == {
        "student.learning_rate": [1e-4, 3e-4, 1e-3],
        "align.input.layers": [[[1, 3]], "all"],
    }
    dumped = config.model_dump(mode="json")
    assert dumped["student"]["learning_rate"] == {"search": [1e-4, 3e-4, 1e-3]}
    assert "search" not in dumped
    assert parse(dumped) == config
    # What is planned with it is what is planned with that value.
    first = small_config(
        tmp_path, student={"learning_rate": 1e-4}, align={"input": {"layers": [[1, 3]]}}
    )
    plan, other = plan_run(config), plan_run(first)
    assert [stage.key for stage in plan.stages] == [stage.key for stage in other.stages]
    # A search has a folder of its own.
    assert plan.key != other.key


def own(config: RunConfig) -> dict[str, Any]:
    return {each.name: config.of(each).search for each in config.variants()}


def test_one_value_replaces_a_search_of_its_key(tmp_path: Path) -> None:
    fast = {"name": "fast", "method": "knife", "student": {"learning_rate": 1e-2}}
    wide = {
        "name": "wide",
        "method": "knife",
        "student": {"learning_rate": {"search": [1, 2, 3, 4]}},
    }
    config = small_config(tmp_path, methods=["finetune", fast, wide], student=RATES, align=WEIGHTS)
    rates, weights = [1e-4, 3e-4, 1e-3], {"align.input.weight": [3, 30]}
    assert own(config) == {
        "finetune": {"student.learning_rate": rates} | weights,
        "fast": weights,
        "wide": {"student.learning_rate": [1, 2, 3, 4]} | weights,
    }
    assert config.of(config.variants()[1]).student.learning_rate == 1e-2
    values = merge(config.model_dump(), read_overrides(["student.learning_rate=0.5"]))
    assert own(parse(values))["finetune"] == weights
    values = merge(config.model_dump(), read_overrides(["align.input.weight={search: [1, 2]}"]))
    assert own(parse(values))["fast"] == {"align.input.weight": [1, 2]}


def test_ablations_search_what_knife_searches(tmp_path: Path) -> None:
    config = small_config(tmp_path, methods=["knife"], ablate=True, align=WEIGHTS)
    found = own(config)
    # `input-only` is `knife` itself here.
    assert "input-only" not in found
    assert found.pop("output-only") == {}
    assert len(found) == 4
    assert all(each == {"align.input.weight": [3, 30]} for each in found.values())


def test_all_errors_of_searches_come_at_once() -> None:
    values = merge(SMALL, {"search": {"student.epochs": [1, 2]}})
    for key, listed in {
        "student.learning_rate": [1e-3],
        "student.epochs": [1, 0, -1],
        "student.rate": [1, 2],
        "student.lora": [{"rank": 4}, {"rank": 8}],
        "student.weight_decay": ["0.1", 0.2, "1e-1"],
        "align.input.weight": [0, 30],
        "align.input.distance": "mse",
        "teacher.epochs": [1, 2],
        "scale.launcher": ["ray", "process"],
        "seeds": [[0], [1]],
    }.items():
        values = merge(values, nested(key, {"search": listed}))
    variant = {"name": "odd", "method": "knife", "student": {"clip": {"search": [1, -1]}}}
    with pytest.raises(UserError) as caught:
        parse(values | {"methods": ["knife", variant]})
    few = "must be one value, or {search: [VALUE, VALUE, …]} with two values or more, but got "
    other = (
        "must be one value: a run searches keys of student and align alone; for others, write a "
        "sweep (knife tune), but got "
    )
    assert set(caught.value.errors) >= {
        "student.learning_rate: " + few + '{"search": [0.001]}',
        "align.input.distance: " + few + '{"search": "mse"}',
        "student.epochs: input should be greater than or equal to 1, but got 0",
        "student.epochs: input should be greater than or equal to 1, but got -1",
        "teacher.epochs: " + other + '{"search": [1, 2]}',
        "scale.launcher: " + other + '{"search": ["ray", "process"]}',
        "seeds: " + other + '{"search": [[0], [1]]}',
    }
    starts = (
        "student.rate: unknown key",
        "search: is no section: give a key of student or align",
        "student.lora: is a section; give its keys {search: [VALUE, …]} as their values",
    )
    assert all(any(e.startswith(start) for e in caught.value.errors) for start in starts)
    # What only whole values can show.
    for changes, said in (
        (
            {"student": {"weight_decay": {"search": ["0.1", 0.2, "1e-1"]}}},
            "student.weight_decay: search has 0.1 twice",
        ),
        ({"align": {"input": {"weight": {"search": [30, 0]}}}}, "align: knife with both weights 0"),
        (
            {"methods": [variant]},
            "methods.odd.student.clip: input should be greater than 0, but got -1",
        ),
    ):
        with pytest.raises(UserError, match=said) as caught:
            parse(merge(SMALL, changes))
        assert len(caught.value.errors) == 1


def trials(config: RunConfig) -> TrialPlan:
    found = plan_trials(config, SourceReader())
    assert found
    return found


def test_every_method_gets_as_many_trials_as_the_one_with_most_settings(tmp_path: Path) -> None:
    given = {"name": "given", "method": "finetune", "student": {"learning_rate": 1e-2}}
    config = small_config(
        tmp_path,
        methods=["finetune", "knife", "teacher_init", "prompt", given],
        student=RATES,
        align=WEIGHTS,
        seeds=[0, 1001],
    )
    found = trials(config)
    # Neither a method that trains nothing nor one with a single setting has anything to choose.
    assert list(found.tried) == ["finetune", "knife", "teacher_init"]
    counts = {name: [len(each.trials) for each in grid] for name, grid in found.tried.items()}
    assert counts == {"finetune": [2, 2, 2], "knife": [1] * 6, "teacher_init": [2, 2, 2]}
    # None of the run's own seeds.
    seeds = {trial.seed for grid in found.tried.values() for each in grid for trial in each.trials}
    assert seeds == {1000, 1002}
    kinds = [stage.kind for stage in found.plan.stages]
    assert {kind: kinds.count(kind) for kind in kinds} == {"teacher": 1, "states": 1, "student": 18}
    for grid in found.tried.values():
        for each in grid:
            for trial in each.trials:
                student = trial.student
                assert student.training.learning_rate == each.values["student.learning_rate"]
                if student.align:
                    assert student.align.input.weight == each.values["align.input.weight"]
    labels = {stage.label for stage in found.plan.stages}
    assert "trial of finetune (student.learning_rate=0.0001) seed 1002" in labels


def test_nothing_is_tried_without_a_search(tmp_path: Path) -> None:
    assert plan_trials(small_config(tmp_path), SourceReader()) is None
    # Only knife reads align.
    config = small_config(tmp_path, methods=["finetune", "teacher_init"], align=WEIGHTS)
    assert plan_trials(config, SourceReader()) is None


def test_values_that_do_not_go_together_are_refused_before_any_trial(tmp_path: Path) -> None:
    config = small_config(
        tmp_path,
        student={"learning_rate": {"search": [1e-3, 1e20]}, "weight_decay": {"search": [0, 1e19]}},
    )
    with pytest.raises(UserError, match=r"methods.knife.student: learning_rate and weight_decay"):
        plan_trials(config, SourceReader())


def test_a_sweep_refuses_what_a_run_decides_before_it_starts() -> None:
    space = {"student.epochs": {"choice": [1, 2]}}
    values = {"name": "s", "base": "demo", "space": space, "budget": {"trials": 2}}
    sweep = Sweep.model_validate(values)
    gate = {"gate": {"below": "train"}}
    with pytest.raises(UserError) as caught:
        Space(sweep, SMALL | {"student": RATES, "teacher": gate}).config({"student.epochs": 1})
    assert [error.partition(": ")[0] for error in caught.value.errors] == [
        "student.learning_rate",
        "teacher.gate.below",
    ]
    assert "set: {student.learning_rate: VALUE}" in caught.value.errors[0]
    # One value in its place, as in the space, is no search.
    point = {"student.epochs": 1, "student.learning_rate": 0.1, "teacher.gate.below": "warn"}
    assert Space(sweep, SMALL | {"student": RATES, "teacher": gate}).config(point).search == {}


def test_what_the_pages_show_is_valid(tmp_path: Path) -> None:
    """The README's line, and the blocks of docs/config.md on searches and gates."""
    root = Path(__file__).parents[2]
    shown = re.findall(r"`((?:methods|student): [\[{][^`]*)`", (root / "README.md").read_text())
    config = parse(merge(SMALL, merge(*map(yaml.safe_load, shown))))
    assert own(config) == {
        "finetune": {"student.learning_rate": [1e-3, 3e-3, 1e-2]},
        "knife": {"student.learning_rate": [1e-3, 3e-3, 1e-2]},
        "knife-fast": {},
    }
    page = (root / "docs" / "config.md").read_text()
    title, end = "## Each method's own settings", "## Workers"
    part = page.partition(title)[2].partition(end)[0]
    search, gate = re.findall(r"^```yaml\n(.*?)^```$", part, re.MULTILINE | re.DOTALL)
    config = small_config(tmp_path, **yaml.safe_load(search))
    grids = {name: list(grid) for name, grid in trials(config).tried.items()}
    assert grids.keys() == {"knife"}
    assert len(grids["knife"]) == 6
    assert parse(merge(SMALL, yaml.safe_load(gate))).teacher.gate == Gate(right=0.9, below="warn")
