"""Sweep files: their errors, and how overrides and paths in them are resolved."""

from pathlib import Path
from typing import Any

import pytest
from command_fixtures import Command
from small_sweep import RATE, SWEEP, WEIGHT, errors, planned, write_sweep

from knife.tune.search.sweep_file import read_sweep

RANGE = {RATE: {"loguniform": [1e-3, 1e-2]}}


def places(found: list[str]) -> list[str]:
    return [error.split(": ")[0] for error in found]


def test_a_whole_sweep_has_no_error(tmp_path: Path) -> None:
    assert errors(tmp_path) == []


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"without": "space"}, "space: must be set"),
        ({"space": {}}, "space: dictionary should have at least 1 item"),
        ({"metric": "accuracy"}, "metric: must be a metric that trials report (dev_accuracy, dev"),
        ({"metric": "test_accuracy"}, "metric: must be a metric that trials report (dev_accuracy"),
        ({"without": "budget"}, "budget.trials: must be set, since search 'random' never ends"),
        ({"serach": "tpe"}, "serach: unknown key; did you mean 'search'?"),
        ({"search": "bayes"}, "search: input should be 'random', 'grid' or 'tpe', but got \"bay"),
        ({"name": "a/b"}, "name: string should match pattern"),
        ({"base": "demoo"}, "CONFIG: 'demoo' is neither a recipe nor a file; did you mean 'demo'?"),
        ({"space": {RATE: {"grid": [1e-3]}}}, f"space.{RATE}: a grid needs search 'grid'; give"),
        ({"search": "grid"}, f"space.{RATE}: search 'grid' needs a list of values: grid or choice"),
        (
            {"scheduler": {"name": "asha"}, "seeds": {"search": [0, 1]}},
            "seeds.search: a scheduler needs trials with one training each, but got 2 seeds; give",
        ),
        ({"set": {"student": {"learning_rate": 1}}}, f"set.{RATE}: is also in the space"),
    ],
)
def test_one_error_by_its_key(tmp_path: Path, changes: dict[str, Any], error: str) -> None:
    (found,) = errors(tmp_path, **changes)
    assert found.startswith(error)


def test_errors_of_values_all_at_once(tmp_path: Path) -> None:
    found = errors(
        tmp_path,
        budget={"trials": 0, "hours": 0, "gpu_hours": -1},
        concurrent=0,
        space={
            "a": {},
            "b": {"choice": [1], "grid": [1]},
            "c": {"choice": []},
            "d": {"uniform": [2, 1]},
            "e": {"loguniform": [0, 1]},
            "f": {"int": [1, 2.5]},
        },
    )
    assert sorted(places(found)) == [
        "budget.gpu_hours",
        "budget.hours",
        "budget.trials",
        "concurrent",
        "space.a",
        "space.b",
        "space.c.choice",
        "space.d",
        "space.e",
        "space.f.int.1",
    ]


def test_errors_of_keys_together_all_at_once(tmp_path: Path) -> None:
    found = errors(
        tmp_path,
        set={WEIGHT: 3},
        seeds={"search": [0, 0], "more": [1, 1]},
        space=SWEEP["space"]
        | {
            "seeds": {"choice": [[0]]},
            "name": {"choice": ["a"]},
            "store": {"choice": ["a"]},
            "track.uri": {"choice": [None]},
            "scale.workers": {"choice": [1, 2]},
        },
    )
    assert sorted(places(found)) == [
        "seeds.more",
        "seeds.search",
        f"set.{WEIGHT}",
        "space.name",
        "space.scale.workers",
        "space.seeds",
        "space.store",
        "space.track.uri",
    ]


def test_values_that_the_run_config_refuses_are_named_all_at_once(tmp_path: Path) -> None:
    found = errors(
        tmp_path,
        space={
            **RANGE,
            "student.learning_rat": {"choice": [1]},
            "data.fraction": {"choice": [0.5, 2, "many"]},
            "student.epochs": {"int": [0, 3]},
            "student.patience": {"choice": [None, 1]},
            "methods": {"choice": ["finetune", "knive"]},
        },
    )
    heads = [
        "space.data.fraction: the value 'many' is refused: data.fraction: input should be",
        "space.data.fraction: the value 2 is refused: data.fraction: input should be",
        "space.methods: the value 'knive' is refused: methods: must be names of methods, but got "
        "'knive' (did you mean 'knife'?)",
        "space.student.epochs: the value 0 is refused: student.epochs: input should be greater",
        "space.student.learning_rat: the value 1 is refused: student.learning_rat: unknown key; "
        "did you mean 'learning_rate'?",
    ]
    assert len(found) == len(heads)
    for error, head in zip(sorted(found), heads, strict=True):
        assert error.startswith(head)


def test_first_points_must_be_whole_and_in_the_space(tmp_path: Path) -> None:
    first = [{RATE: 5e-3}, {RATE: 1, WEIGHT: 2, "align.input.weigth": 1}]
    assert sorted(errors(tmp_path, first=first)) == [
        f"first.0: {WEIGHT} is missing",
        f"first.1.{WEIGHT}: 2 is not in the key's domain",
        f"first.1.align.input.weigth: is not in the space; did you mean '{WEIGHT}'?",
        f"first.1.{RATE}: 1 is not in the key's domain",
    ]


def test_a_trial_trains_one_method(tmp_path: Path) -> None:
    (error,) = errors(tmp_path, "methods=[finetune, knife]")
    assert error.startswith("methods: a trial trains one method, but the base has finetune, knife")
    both = {"methods": {"choice": ["finetune", "knife"]}} | RANGE
    assert errors(tmp_path, space=both) == []


def test_files_that_are_none(tmp_path: Path, command: Command) -> None:
    missing = tmp_path / "nothing.yaml"
    (error,) = command("tune", missing).errors
    assert error == f"SWEEP: the file {missing} does not exist; give a sweep's YAML file"
    path = write_sweep(tmp_path)
    path.write_text("name: x\nspace: [1, 2\nbase: y\n")
    (error,) = command("tune", path).errors
    assert error.startswith(f"{path}:3: not valid YAML")
    assert not (tmp_path / "store").exists()


def test_overrides_are_of_the_sweep_or_of_the_run(tmp_path: Path) -> None:
    plan = planned(tmp_path, "seed=3", "budget.trials=2", "student.epochs=1", "name=other")
    sweep = plan.space.sweep
    assert (sweep.seed, sweep.budget.trials, sweep.name) == (3, 2, "other")
    assert {each.config.student.epochs for each in plan.plans} == {1}
    assert {each.config.name for each in plan.plans} == {"other"}


def test_a_searched_key_that_is_set_is_no_longer_searched(tmp_path: Path) -> None:
    first = [{RATE: 5e-3, WEIGHT: 30}]
    path = write_sweep(tmp_path, first=first)
    file = read_sweep(path, ["student.learning_rate=5e-3"])
    assert list(file.sweep.space) == [WEIGHT]
    assert file.sweep.first == [{WEIGHT: 30}]
    plan = planned(tmp_path, "student.learning_rate=5e-3", first=first)
    assert {each.config.student.learning_rate for each in plan.plans} == {5e-3}
    assert plan.points == [{WEIGHT: 30}, {WEIGHT: 1}]


def test_numbers_without_a_point_are_numbers(tmp_path: Path) -> None:
    space = {RATE: {"choice": ["1e-3", "5e-3", "last"]}, WEIGHT: {"loguniform": ["1e-1", "1e2"]}}
    sweep = read_sweep(write_sweep(tmp_path, space=space, first=[{RATE: "5e-3", WEIGHT: 1}])).sweep
    assert sweep.space[RATE].values == [1e-3, 5e-3, "last"]
    assert sweep.space[WEIGHT].bounds == (0.1, 100)
    assert sweep.first == [{RATE: 5e-3, WEIGHT: 1}]


def test_paths_are_absolute_wherever_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("mine", "model"):
        (tmp_path / name).mkdir()
    variant = {"name": "v", "method": "knife", "data": {"source": "mine"}}
    pair = {"teacher": "model", "student": "tiny-t5"}
    path = write_sweep(
        tmp_path,
        space={
            "data.source": {"choice": ["mine", "creatures", "gone"]},
            "model": {"choice": [pair]},
            "methods": {"choice": [variant]},
        },
        first=[{"data.source": "mine", "model": pair, "methods": variant}],
        set={"model.student": "model", "data": {"rationale": "given"}},
    )
    sweep = read_sweep(path).sweep
    mine, model = str(tmp_path / "mine"), str(tmp_path / "model")
    assert sweep.space["data.source"].values == [mine, "creatures", "gone"]
    (absolute,) = sweep.space["model"].values
    assert absolute == {"teacher": model, "student": "tiny-t5"}
    (method,) = sweep.space["methods"].values
    assert method["data"] == {"source": mine}
    assert sweep.first == [{"data.source": mine, "model": absolute, "methods": method}]
    assert sweep.set == {"model.student": model, "data": {"rationale": "given"}}
    over = read_sweep(path, ["data.source=./mine", "data.rationale=shuffled"])
    assert over.sweep.set["data.source"] == mine
    assert over.sweep.set["data.rationale"] == "shuffled"
    base = tmp_path / "base.yaml"
    base.write_text("data: {source: mine}\nmodel: {teacher: ~, student: ./model}\n")
    assert read_sweep(path).base["model"]["student"] == model
    assert read_sweep(path).base["data"]["source"] == mine
