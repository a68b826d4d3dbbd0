"""`ablate: true`: the variants that it adds, what they share, and what is refused."""

from pathlib import Path
from typing import Any, get_args

import pytest
from small_run import small_config

from knife.config.methods import Method
from knife.config.recipe_files import find_config
from knife.config.run import read
from knife.core.errors import UserError
from knife.plan.plan import plan_run
from knife.tune.search.settings import Sweep
from knife.tune.search.space import Space

ALL = ["input-only", "output-only", "input-and-output", "no-bottleneck", "shuffled"]


def added(store: Path, **changes: Any) -> dict[str, Any]:
    """Return the configs of the variants that are added to `knife`."""
    config = small_config(store, ablate=True, **changes)
    return {variant.name: config.of(variant) for variant in config.variants()[1:]}


def test_each_differs_from_knife_in_one_thing(tmp_path: Path) -> None:
    both = {"input": {"weight": 20, "distance": "cosine"}, "output": {"weight": 2}}
    found = added(tmp_path, align=both)
    # A variant that equals knife is not added.
    assert list(found) == [name for name in ALL if name != "input-and-output"]
    weights = {name: (c.align.input.weight, c.align.output.weight) for name, c in found.items()}
    assert weights == {
        "input-only": (20, 0),
        "output-only": (0, 2),
        "no-bottleneck": (20, 2),
        "shuffled": (20, 2),
    }
    for name, config in found.items():
        assert config.align.input.distance == "cosine"
        assert config.teacher.bottleneck == (name != "no-bottleneck")
        assert config.data.rationale == ("shuffled" if name == "shuffled" else "given")


def test_weights_that_knife_lacks_come_from_the_defaults(tmp_path: Path) -> None:
    found = added(tmp_path)
    assert list(found) == [name for name in ALL if name != "input-only"]
    assert found["output-only"].align.output.weight == 1
    assert found["input-and-output"].align.input.weight == 30
    output = added(tmp_path, align={"input": {"weight": 0}, "output": {"weight": 5}})
    assert list(output) == [name for name in ALL if name != "output-only"]
    assert output["input-only"].align.input.weight == 30
    assert output["input-and-output"].align.output.weight == 5
    open_teacher = added(tmp_path, teacher={"bottleneck": False}, data={"rationale": "shuffled"})
    assert list(open_teacher) == ["output-only", "input-and-output"]


def test_equal_stages_are_shared(tmp_path: Path) -> None:
    plain = plan_run(small_config(tmp_path, methods=["finetune", "knife"], seeds=[0, 1]))
    config = small_config(tmp_path, methods=["finetune", "knife"], seeds=[0, 1], ablate=True)
    plan = plan_run(config)
    kinds = [stage.kind for stage in plan.stages]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        # knife's, without the bottleneck, of shuffled rationales.
        "teacher": 3,
        # Theirs, of the last layer, and the answer-side states of knife's.
        "states": 4,
        "student": 6 * 2,
        # Both ceilings are those of knife's teacher.
        "evaluate": 6 * 2 + 2,
    }
    assert {(s.kind, s.key) for s in plain.stages} < {(s.kind, s.key) for s in plan.stages}
    by_name = {member.method: member.student for member in plan.members}
    assert list(by_name) == ["finetune", "knife", *(name for name in ALL if name != "input-only")]
    # The states of a layer are stored once, whatever else is read with them.
    (layer,) = by_name["knife"].states
    both = by_name["input-and-output"].states
    assert list(both) == [layer, "output"]
    assert by_name["knife"].states == {layer: both[layer]}
    assert by_name["output-only"].states == {"output": both["output"]}
    labels = {stage.key: stage.label for stage in plan.stages}
    assert len(set(labels.values())) == len(labels)


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        small_config(tmp_path, methods=["finetune"], ablate=True)
    assert caught.value.errors == ["ablate: needs knife, whose parts it removes; add it to methods"]
    own: dict[str, Any] = {"name": "shuffled", "method": "knife", "align": {"states": "online"}}
    with pytest.raises(UserError) as caught:
        small_config(tmp_path, methods=["knife", own], ablate=True)
    assert caught.value.errors == [
        "methods: 'shuffled' is given twice; ablate: true adds one of that name, so leave it out"
    ]


def test_a_error_of_the_run_is_said_once(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        small_config(tmp_path, ablate=True, scale={"workers": 2})
    assert caught.value.errors == [
        "scale.workers: launcher 'process' has one worker; use launcher 'ray'"
    ]


@pytest.mark.parametrize("name", ["creatures-full", "creatures-full-decoder"])
def test_creatures_full_has_every_method_and_ablation(name: str) -> None:
    variants = read(find_config(name)).variants()
    assert {variant.method for variant in variants} == set(get_args(Method))
    assert [v.name for v in variants][-4:] == [n for n in ALL if n != "input-only"]


def test_a_trial_trains_its_method_alone(tmp_path: Path) -> None:
    base = small_config(tmp_path, ablate=True).model_dump(mode="json")
    keys = {
        "align.input.tokens": {"choice": ["all", "content", "mean"]},
        "align.input.layers": {"choice": ["last", "uniform"]},
        "align.input.distance": {"choice": ["scaled_mse", "layer_norm_mse"]},
    }
    sweep = Sweep.model_validate({"name": "s", "base": "x", "search": "grid", "space": keys})
    space = Space(sweep, base)
    point = space.points()[-1]
    config = space.config(point)
    assert [variant.name for variant in config.variants()] == ["knife"]
    assert config.align.input.tokens == "mean"
    assert config.align.input.layers == "uniform"
    assert config.align.input.distance == "layer_norm_mse"
