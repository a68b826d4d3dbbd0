"""The end of a sweep: the winner, the finetune it is compared with, and the recipe of both."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_up import a_row
from small_run import SMALL
from small_sweep import planned

from knife.config.run import read
from knife.core.atomic import write_json
from knife.launch.executor import Executor
from knife.pipeline.timeline import Timeline
from knife.plan.pace import Pace
from knife.plan.plan import plan_run
from knife.store.store import Store
from knife.tune.search.final import baselines, recipe, winner, write_recipe
from knife.tune.search.phase import Workshop
from knife.tune.search.phases import Phases
from knife.tune.search.settings import Sweep
from knife.tune.search.space import Space
from knife.tune.search.trials import TrialRow

VARIANT = {"name": "strong", "method": "knife", "align": {"input": {"weight": 99}}}
DOMAINS: dict[str, Any] = {
    "methods": {"choice": ["finetune", "knife", VARIANT]},
    "student.learning_rate": {"choice": [1e-3, 2e-3]},
    "data.fraction": {"choice": [0.5, 1.0]},
}


@pytest.fixture
def space(tmp_path: Path) -> Space:
    sweep = {
        "name": "s",
        "base": "b",
        "space": DOMAINS,
        "budget": {"trials": 9},
        "final": {"seeds": [7, 8]},
    }
    return Space(Sweep.model_validate(sweep), SMALL | {"store": str(tmp_path)})


def row(number: int, method: Any, rate: float, fraction: float, score: float) -> TrialRow:
    point = {"methods": method, "student.learning_rate": rate, "data.fraction": fraction}
    return a_row(number, point, score)


def test_the_winner_is_the_best_that_is_not_finetune(space: Space) -> None:
    rows = [
        row(1, "finetune", 1e-3, 1.0, 0.9),
        row(2, "knife", 1e-3, 1.0, 0.7),
        row(3, VARIANT, 1e-3, 1.0, 0.8),
        replace(row(4, "knife", 2e-3, 1.0, 0.85), state="pruned"),
    ]
    assert winner(space, rows) == rows[2]
    assert winner(space, rows[:1]) == rows[0]
    assert winner(space, rows[3:]) is None
    assert winner(space, []) is None


def test_one_lucky_seed_does_not_win_over_more_seeds(space: Space) -> None:
    lucky = row(1, "knife", 1e-3, 1.0, 0.9)
    steady = replace(row(2, "knife", 2e-3, 1.0, 0.8), scores={0: 0.81, 1: 0.79})
    assert winner(space, [lucky, steady]) == steady


def test_the_winner_meets_the_best_searched_finetune_of_its_data(space: Space) -> None:
    rows = [
        row(1, "finetune", 1e-3, 0.5, 0.9),
        row(2, "finetune", 1e-3, 1.0, 0.5),
        row(3, "finetune", 2e-3, 1.0, 0.6),
        row(4, VARIANT, 1e-3, 1.0, 0.8),
    ]
    (config,) = baselines(space, rows[3], rows)
    assert config.methods == ["finetune"]
    assert config.student.learning_rate == 2e-3
    assert config.data.fraction == 1.0


def test_an_unsearched_finetune_gets_the_bases_settings_and_the_winners(space: Space) -> None:
    best = row(1, "knife", 2e-3, 0.5, 0.8)
    found = baselines(space, best, [best])
    assert [config.student.learning_rate for config in found] == [3e-3, 2e-3]
    assert {config.data.fraction for config in found} == {0.5}
    assert all(config.methods == ["finetune"] for config in found)


@pytest.mark.parametrize("method", ["knife", VARIANT, "finetune"])
def test_the_recipe_is_a_run_config_that_says_what_won(
    space: Space, tmp_path: Path, method: Any
) -> None:
    best = row(4, method, 1e-3, 0.5, 0.8)
    baseline = baselines(space, best, [row(2, "finetune", 2e-3, 0.5, 0.6)])[0]
    config = recipe(space, best, baseline)
    path = tmp_path / "best.yaml"
    write_recipe(path, config, space, best)
    assert read(path) == config
    assert (config.name, config.seeds, config.data.fraction) == ("s-best", [7, 8], 0.5)
    assert "trial 4: dev_accuracy 0.8000 (higher is better)" in path.read_text()
    plan = plan_run(config)
    rates = {member.method: member.student.training.learning_rate for member in plan.members}
    if method == "finetune":
        assert rates == {"finetune": 1e-3}
    else:
        name = method if isinstance(method, str) else method["name"]
        assert rates == {"finetune": 2e-3, name: 1e-3}


def test_the_winners_students_are_those_of_its_trial(space: Space) -> None:
    """A seed that the search has trained is not trained again."""
    best = row(4, VARIANT, 1e-3, 0.5, 0.8)
    config = recipe(space, best, baselines(space, best, [best])[0])
    own = plan_run(space.config(best.point, [7, 8]))
    members = plan_run(config).members
    keys = [member.student.key for member in members if member.method == "strong"]
    assert keys == [member.student.key for member in own.members]


def test_a_trial_of_which_one_seed_fails_is_no_winner(tmp_path: Path) -> None:
    """A mean over the finite seeds would hide the one that diverged."""
    plan = planned(tmp_path, seeds={"search": [0], "best": 2, "more": [1, 2]})
    points = plan.space.points()
    rows = [a_row(number, points[number - 1], 1 - number / 10) for number in (1, 2, 3)]
    diverged = a_row(2, points[0], None, "failed")
    more = [
        replace(a_row(1, points[0], 0.9), scores={1: 0.9}),
        diverged,
        replace(a_row(3, points[1], 0.8), scores={1: 0.6}),
        replace(a_row(4, points[1], 0.8), scores={2: 0.4}),
    ]
    # The trials with more seeds have already ended.
    write_json(tmp_path / "seeds.json", [row.to_dict() for row in more])
    executor = Executor(tmp_path, plan.config.scale, Pace({}), width=1)
    workshop = Workshop(executor, {}, Store(tmp_path), Timeline(tmp_path))
    phases = Phases(plan, tmp_path, workshop, lambda *_: pytest.fail("nothing is left to do"))
    found = phases.more_seeds(rows)
    assert [row.state for row in found] == ["failed", "finished", "finished"]
    assert (found[0].score, found[0].error) == (None, f"seed 2: {diverged.error}")
    assert found[1].scores == {0: 0.8, 1: 0.6, 2: 0.4}
    assert winner(plan.space, found) == found[1]
    # None with several seeds: the best by the search's own seed.
    failed = [replace(row, state="failed", score=None) for row in found[:2]]
    assert winner(plan.space, [*failed, found[2]]) == found[2]
