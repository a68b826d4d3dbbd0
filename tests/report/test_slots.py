"""The chart of slots."""

from typing import Any

import pytest

from knife.report.slots import idle_share, last_start


def row(slot: int, begin: float, end: float) -> dict[str, Any]:
    return {"slot": slot, "begin": begin, "end": end, "kind": "student", "made": True}


def test_idle_is_what_is_left_between_and_after_the_work_of_all_slots() -> None:
    rows = [row(0, 10, 20), row(0, 22, 30), row(1, 10, 20)]
    assert idle_share(rows) == pytest.approx(1 - 28 / 40)
    assert idle_share([row(0, 1, 5)]) == 0.0


def test_a_start_is_what_has_no_long_pause() -> None:
    first, second = [row(0, 0, 50), row(1, 60, 100)], [row(0, 1000, 1010), row(1, 1001, 1500)]
    assert last_start([*second, *first]) == second
    # A long stage is no pause.
    assert last_start([row(0, 0, 900), row(1, 10, 20), row(1, 905, 910)])[0]["begin"] == 0
