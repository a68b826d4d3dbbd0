"""What Ray Tune is told to try, also after a restart."""

from pathlib import Path
from typing import Any

from made_up import a_space
from ray.tune.search import Searcher

from knife.tune.searcher import Points, Suggestions, searcher
from knife.tune.trial import SCORE

DOMAINS = {"x": {"uniform": [0, 1]}, "layers": {"choice": ["last", [[1, 1]]]}}
FIRST = {"x": 0.25, "layers": [[1, 1]]}


def a_search() -> Any:
    return searcher(a_space(DOMAINS, search="tpe", first=[FIRST]), None)


def test_points_are_given_once_over_a_restart(tmp_path: Path) -> None:
    points = [{"point": {"x": number}} for number in range(3)]
    search = Points(points)
    assert search.suggest("a") == {"number": 1, "point": {"x": 0}}
    assert search.suggest("b") == {"number": 2, "point": {"x": 1}}
    search.save(str(tmp_path / "state"))
    other = Points(points)
    other.restore(str(tmp_path / "state"))
    assert other.suggest("c") == {"number": 3, "point": {"x": 2}}
    assert other.suggest("d") == Searcher.FINISHED
    assert search.suggest("c") == {"number": 3, "point": {"x": 2}}


def test_known_points_are_searched_as_points() -> None:
    space = a_space(DOMAINS)
    search = searcher(space, space.points()[:2])
    assert isinstance(search, Points)
    assert search.suggest("a") == {"number": 1, "point": space.points()[0]}


def test_suggestions_begin_with_the_first_points_and_hang_on_the_seed() -> None:
    search, other = a_search(), a_search()
    space = a_space(DOMAINS)
    for number in range(1, 5):
        params = search.suggest(f"t{number}")
        assert params["number"] == number
        point = space.decode(params["suggested"])
        assert all(space.sweep.space[key].holds(value) for key, value in point.items())
        assert (point == FIRST) == (number == 1)
        assert params == other.suggest(f"o{number}")


def test_suggestions_go_on_after_a_restart(tmp_path: Path) -> None:
    search = a_search()
    for number in range(1, 13):
        params = search.suggest(f"t{number}")
        result = {SCORE: params["suggested"]["x"], "training_iteration": 1}
        search.on_trial_result(f"t{number}", result)
        search.on_trial_complete(f"t{number}", result)
    search.save(str(tmp_path / "state"))
    other = a_search()
    other.restore(str(tmp_path / "state"))
    assert isinstance(other, Suggestions)
    params = other.suggest("t13")
    assert params["number"] == 13
    assert params == search.suggest("t13")
