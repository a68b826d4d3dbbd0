"""The formula of the expected gain, by hand, and the interval around it."""

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knife.forecast.features import LEVELS, Features
from knife.forecast.gain import Curve, Fitted, Room

CURVE = Curve(ceiling=0.8, half=math.sqrt(40), slope=0.5, fit=2.0, told=1.0, taught=0.5)
FITTED = Fitted(CURVE, (2.0, 0.5), (-2.0, -1.0, 0.0, 1.0, 2.0), 50.0)
# Every fact is stated by 5 to 8 rationales.
GOOD = Features(
    examples=500, explained=1.0, asked=100, own=False, facts=2.0, mentions=6.0, mean_mentions=6.0,
    at_least={level: float(level <= 5) for level in LEVELS}, fit=1.0, told=0.0, leak=0.0,
    question=0.5, chance=0.5,
)  # fmt: skip
SHARES = st.floats(0, 1)


def test_the_gain_is_the_product_of_its_factors() -> None:
    # The middle of 5 and 8 is the half.
    assert CURVE.remembered(GOOD) == pytest.approx(0.5)
    assert CURVE.gain(GOOD, Room(50)) == pytest.approx(50 * 0.8 * 0.5)
    worse = replace(GOOD, fit=0.5, told=0.25, familiar=0.5)
    assert CURVE.gain(worse, Room(50)) == pytest.approx(20 * 0.25 * 0.75 * 0.5)
    # What is learned of the task is neither told nor forgotten.
    assert CURVE.gain(worse, Room(50, task=8)) == pytest.approx(0.25 * (20 * 0.75 * 0.5 + 4))
    assert CURVE.gain(GOOD, Room(-10)) == 0


def test_what_is_remembered_is_the_mean_over_facts() -> None:
    half = {level: share / 2 for level, share in GOOD.at_least.items()}
    assert CURVE.remembered(replace(GOOD, at_least=half)) == pytest.approx(0.25)
    assert CURVE.remembered(replace(GOOD, at_least=dict.fromkeys(LEVELS, 0.0))) == 0
    # From 40 on, as if it were 57: sigmoid(log(57 / 6.3) / 0.5).
    often = CURVE.remembered(replace(GOOD, at_least=dict.fromkeys(LEVELS, 1.0)))
    assert often == pytest.approx(1 / (1 + math.exp(-math.log(40 * math.sqrt(2) / 6.3246) / 0.5)))


@given(
    st.lists(SHARES, min_size=8, max_size=8),
    SHARES,
    SHARES,
    st.builds(Room, st.floats(0, 60), st.floats(0, 40)),
)
def test_better_data_never_lower_the_gain(
    shares: list[float], fit: float, told: float, room: Room
) -> None:
    at_least = dict(zip(LEVELS, sorted(shares, reverse=True), strict=True))
    of = replace(GOOD, at_least=at_least, fit=fit, told=told)
    gain = CURVE.gain(of, room)
    assert 0 <= gain <= room.total
    often = {level: min(1.0, share + 0.1) for level, share in at_least.items()}
    for better in (
        replace(of, at_least=often),
        replace(of, fit=min(1.0, fit + 0.1)),
        replace(of, told=told / 2),
    ):
        assert CURVE.gain(better, room) >= gain - 1e-9
    for more in (replace(room, facts=room.facts + 1), replace(room, task=room.task + 1)):
        assert CURVE.gain(of, more) >= gain


def test_the_interval_comes_from_the_residuals() -> None:
    found = FITTED.expected(GOOD, Room(50))
    # 20 points expected, with a spread of 2 + 0.5 x 20; 10 % and 90 % of the residuals are at 1.6.
    assert found.gain == pytest.approx(20)
    assert [found.low, found.high] == pytest.approx([20 - 1.6 * 12, 20 + 1.6 * 12])
    # Gains would be -4, 8, 20, 32 and 44: four of five are worth it.
    assert found.worth == pytest.approx(0.8)
    nothing = FITTED.expected(replace(GOOD, at_least=dict.fromkeys(LEVELS, 0.0)), Room(50))
    assert (nothing.gain, nothing.worth) == (0, 0)
    assert [nothing.low, nothing.high] == pytest.approx([-3.2, 3.2])


def test_what_is_shipped_can_be_read_and_written() -> None:
    for name in ("data", "teacher"):
        found = Fitted.load(name)
        assert json.loads(json.dumps(found.to_dict()))["curve"]["half"] == found.curve.half
        assert list(found.residuals) == sorted(found.residuals)
        assert len(found.residuals) >= 20
        assert 0 < found.curve.ceiling <= 1
