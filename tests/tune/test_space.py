"""Points of a space: random, as a grid, and in optuna's form."""

import itertools
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import a_space
from small_run import SMALL

from knife.config.overrides import describe
from knife.tune.search.settings import Sweep
from knife.tune.search.space import Space

MIXED: dict[str, Any] = {
    "student.learning_rate": {"loguniform": [1e-4, 1e-2]},
    "student.weight_decay": {"uniform": [0, 0.1]},
    "student.epochs": {"int": [1, 9]},
    "align.input.layers": {"choice": ["last", [[1, 1], [2, 3]]]},
    "student.patience": {"choice": [None, 2]},
    "teacher.bottleneck": {"choice": [True, False]},
    "methods": {"choice": ["knife", {"name": "v", "method": "knife", "data": {"fraction": 0.5}}]},
}
VALUES = st.lists(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-9, 9)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.sampled_from(["last", "null", "true", ""]),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner),
        max_leaves=4,
    ),
    min_size=1,
    max_size=4,
)


def test_random_points_hang_on_the_seed_alone() -> None:
    points = a_space(MIXED).points()
    assert len(points) == 16
    assert points == a_space(MIXED).points()
    assert points != a_space(MIXED, seed=1).points()
    assert a_space(MIXED, budget={"trials": 5}).points() == points[:5]
    for point in points:
        assert list(point) == list(MIXED)
        assert all(a_space(MIXED).sweep.space[key].holds(value) for key, value in point.items())
    for key in ("align.input.layers", "student.patience", "teacher.bottleneck", "methods"):
        found = [point[key] for point in points]
        assert all(value in found for value in MIXED[key]["choice"])


def test_a_grid_is_the_full_product() -> None:
    domains: dict[str, dict[str, Any]] = {
        "data.fraction": {"grid": [0.5, 1.0]},
        "methods": {"choice": ["finetune", "knife", {"name": "v", "method": "knife"}]},
        "student.patience": {"grid": [None, 1]},
    }
    points = a_space(domains, search="grid").points()
    values = [next(iter(domain.values())) for domain in domains.values()]
    assert [tuple(point.values()) for point in points] == list(itertools.product(*values))
    assert points[:5] == a_space(domains, search="grid", budget={"trials": 5}).points()


def test_first_points_stand_in_front_and_are_not_drawn_again() -> None:
    first = [{"student.patience": 2}, {"student.patience": None}]
    domains = {"student.patience": {"grid": [None, 1, 2]}}
    space = a_space(domains, search="grid", first=first)
    assert space.points() == [*first, {"student.patience": 1}]
    drawn = a_space(MIXED).points()
    point = drawn[3] | {"student.epochs": 1}
    assert a_space(MIXED, first=[point]).points() == [point, *drawn[:15]]


@settings(max_examples=50, deadline=None)
@given(VALUES)
def test_what_optuna_keeps_of_a_value_leads_back_to_it(values: list[Any]) -> None:
    space = a_space({"key": {"choice": values}})
    for value in space.sweep.space["key"].values:
        encoded = space.encode({"key": value})
        assert isinstance(encoded["key"], bool | int | float | str | None)
        assert space.decode(encoded) == {"key": value}


def test_optuna_suggests_points_of_the_space() -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = a_space(MIXED)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    for _ in range(8):
        point = space.decode(study.ask(space.distributions()).params)
        assert all(space.sweep.space[key].holds(value) for key, value in point.items())


def test_domains_hold_what_they_say() -> None:
    domains = a_space(MIXED).sweep.space
    epochs, decay = domains["student.epochs"], domains["student.weight_decay"]
    assert epochs.holds(9)
    assert not any(map(epochs.holds, (0, 10, 1.5, True, "1")))
    assert decay.holds(0.1)
    assert decay.holds(0)
    assert not any(map(decay.holds, (0.2, -1, True, "0.05", None)))


def test_the_config_of_a_point() -> None:
    sweep = {
        "name": "s",
        "base": "b",
        "budget": {"trials": 1},
        "seeds": {"search": [7]},
        "set": {"student.epochs": 5},
        "space": {"student": {"choice": [{"epochs": 1, "patience": 2}]}},
    }
    space = Space(Sweep.model_validate(sweep), SMALL)
    (point,) = space.points()
    config = space.config(point)
    # Values of `set` apply after the point; the rest is the base's.
    assert (config.student.epochs, config.student.patience) == (5, 2)
    assert config.student.learning_rate == SMALL["student"]["learning_rate"]
    assert (config.name, config.seeds) == ("s", [7])
    assert space.config(point, [1, 2]).seeds == [1, 2]
    one = space.config({"methods": "finetune"})
    assert one.methods == ["finetune"]


def test_a_point_in_words() -> None:
    point = {"a.rate": 0.00123456, "methods": {"name": "v", "method": "knife"}, "x": None}
    assert describe(point) == "a.rate=0.001235 methods=v x=None"
