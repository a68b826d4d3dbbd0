"""What is tried, at the first start and at later ones."""

from typing import Any

import pytest
from made_up import a_row, a_space

from knife.tune.search.begun import Begun
from knife.tune.search.searcher import Points, Suggestions
from knife.tune.search.trials import State

DOMAINS = {"x": {"uniform": [0, 1]}, "layers": {"choice": ["last", [[1, 1]]]}}
FIRST = {"x": 0.25, "layers": [[1, 1]]}
SPACE = a_space(DOMAINS, search="tpe", first=[FIRST])


def suggested(search: Suggestions, count: int) -> list[dict[str, Any]]:
    """Return what it suggests to this many parallel trials, including their numbers."""
    found = [search.suggest(f"trial {number}") for number in range(count)]
    assert all(found)
    return [params for params in found if params]


def begun(params: dict[str, Any], state: State = "finished", score: float | None = 0.5) -> Begun:
    row = a_row(params["number"], SPACE.decode(params["suggested"]), score, state)
    return Begun(params, row, ended=state != "stopped")


def test_points_are_given_once_in_their_order() -> None:
    points = [{"number": number, "point": {"x": number}} for number in (2, 4)]
    search = Points(points)
    assert search.left == 2
    assert [search.suggest("a"), search.suggest("b")] == points
    assert search.left == 0
    assert search.suggest("c") is None


def test_suggestions_begin_with_the_first_points_and_depend_on_the_seed() -> None:
    found = suggested(Suggestions(SPACE, 4), 4)
    assert found == suggested(Suggestions(SPACE, 4), 4)
    assert [params["number"] for params in found] == [1, 2, 3, 4]
    for params in found:
        point = SPACE.decode(params["suggested"])
        assert all(SPACE.sweep.space[key].holds(value) for key, value in point.items())
        assert (point == FIRST) == (params["number"] == 1)


@pytest.mark.parametrize("done", [0, 1, 2, 5])
def test_more_trials_are_those_of_a_search_that_was_to_have_them_from_the_start(done: int) -> None:
    whole = suggested(Suggestions(SPACE, 8), 8)
    search = Suggestions(SPACE, 8, [begun(params) for params in whole[:done]])
    assert search.left == 8 - done
    assert suggested(search, 8 - done) == whole[done:]
    assert search.left == 0
    assert search.suggest("one more") is None


def test_what_has_begun_and_not_ended_comes_first_with_its_number() -> None:
    whole = suggested(Suggestions(SPACE, 6), 6)
    states: list[State] = ["finished", "stopped", "failed", "stopped", "pruned"]
    scores = [0.5, None, None, None, None]
    known = [begun(p, own, s) for p, own, s in zip(whole, states, scores, strict=False)]
    search = Suggestions(SPACE, 6, known)
    assert suggested(search, 3) == [whole[1], whole[3], whole[5]]
    # Fewer than have ended: none starts.
    assert Suggestions(SPACE, 2, known).suggest("a") is None


def test_optuna_learns_from_trials_of_earlier_starts() -> None:
    """After optuna's initial random draws, the good region is searched."""
    whole = suggested(Suggestions(SPACE, 40), 40)
    scores = [1 - abs(params["suggested"]["x"] - 0.9) for params in whole]
    known = [begun(p, score=s) for p, s in zip(whole, scores, strict=True)]
    found = suggested(Suggestions(SPACE, 50, known), 10)
    assert sum(params["suggested"]["x"] > 0.6 for params in found) >= 8


def test_a_trial_that_ends_without_a_score_has_failed() -> None:
    search = Suggestions(SPACE, 3)
    suggested(search, 1)
    search.on_trial_complete("trial 0", error=True)
    (trial,) = search._ot_study.get_trials()
    assert trial.state.name == "FAIL"
