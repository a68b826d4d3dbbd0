import json
import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from knife.report.verdict import Ceiling, compare, verdict

Predictions = dict[int, dict[str, bool]]


def simulate(
    generator: np.random.Generator, seeds: int, examples: int, spread: float, gain: float = 0.0
) -> NDArray[np.float64]:
    """Differences of two methods whose examples differ in difficulty and whose seeds in luck.

    `spread` is the standard deviation over seeds and `gain` the second method's advantage, both
    on the logit scale.
    """
    difficulty = generator.normal(0, 1, (1, examples))

    def right(advantage: float) -> NDArray[np.float64]:
        taste = generator.normal(0, 0.5, (1, examples))
        luck = generator.normal(0, spread, (seeds, 1)) if spread else 0.0
        chance = 1 / (1 + np.exp(-(difficulty + taste + luck + advantage)))
        return (generator.random((seeds, examples)) < chance).astype(float)

    return right(gain) - right(0.0)


def share_below_5_percent(seeds: int, spread: float, gain: float = 0.0) -> float:
    generator = np.random.default_rng(7)
    p = [compare(simulate(generator, seeds, 200, spread, gain))[0].p for _ in range(500)]
    return float(np.mean([value is not None and value < 0.05 for value in p]))


@pytest.mark.parametrize(("seeds", "spread"), [(1, 0.0), (3, 0.0), (3, 0.15), (5, 0.3)])
def test_no_difference_is_found_rarely(seeds: int, spread: float) -> None:
    # 5 % of 500 has a standard error of 1 %.
    assert share_below_5_percent(seeds, spread) <= 0.07


def test_a_difference_is_found_often() -> None:
    assert share_below_5_percent(5, 0.1, gain=0.8) > 0.9


def test_examples_alone_would_find_differences_that_are_not_there() -> None:
    """What the seeds' part of the variance is for."""
    generator = np.random.default_rng(7)
    p = [
        stats.ttest_1samp(simulate(generator, 5, 200, 0.5).mean(axis=0), 0).pvalue
        for _ in range(300)
    ]
    assert np.mean(np.array(p) < 0.05) > 0.3


def test_the_interval_holds_the_truth() -> None:
    """A gain that is known: the second method is right on a fixed share of the examples more."""
    generator = np.random.default_rng(3)
    held = 0
    for _ in range(400):
        noise = generator.normal(0, 0.03, (5, 1)) + generator.normal(0, 0.5, (1, 300))
        difference, _ = compare(0.1 + noise + generator.normal(0, 0.5, (5, 300)))
        assert difference.low is not None
        assert difference.high is not None
        held += difference.low <= 10 <= difference.high
    assert held / 400 >= 0.93


def test_one_seed_is_the_t_test_over_examples() -> None:
    differences_SN = simulate(np.random.default_rng(1), 1, 150, 0.0, gain=0.6)
    difference, note = compare(differences_SN)
    result = stats.ttest_1samp(differences_SN[0], 0)
    interval = result.confidence_interval(0.95)
    assert difference.p == pytest.approx(result.pvalue, rel=1e-9)
    assert difference.low == pytest.approx(100 * interval.low)
    assert difference.high == pytest.approx(100 * interval.high)
    assert note.startswith("one seed")


def test_many_seeds_that_agree_are_the_t_test_over_examples() -> None:
    generator = np.random.default_rng(2)
    differences_SN = generator.normal(0.02, 0.2, (1, 300)) + generator.normal(0, 0.02, (200, 300))
    difference, note = compare(differences_SN)
    result = stats.ttest_1samp(differences_SN.mean(axis=0), 0)
    assert difference.p == pytest.approx(result.pvalue, rel=0.01)
    assert note == ""


def test_the_formula_by_hand() -> None:
    # Means over seeds: 1, 0, 0.5; over examples: 1/3, 2/3.
    difference, note = compare(np.array([[1.0, 0.0, 0.0], [1.0, 0.0, 1.0]]))
    a, b = 0.25 / 3, (1 / 18) / 2
    freedom = (a + b) ** 2 / (a**2 / 2 + b**2 / 1)
    assert difference.points == pytest.approx(50)
    assert difference.p == pytest.approx(2 * stats.t.sf(0.5 / math.sqrt(a + b), freedom))
    assert difference.high == 100, "cut at what is possible"
    assert note.startswith("two seeds")


def test_no_difference_at_all() -> None:
    difference, _ = compare(np.zeros((3, 10)))
    assert (difference.points, difference.low, difference.high, difference.p) == (0, 0, 0, 1)


@pytest.mark.parametrize("differences_SN", [np.ones((3, 10)), np.array([[1.0], [0.0]])])
def test_no_p_where_there_is_no_spread_to_see(differences_SN: NDArray[np.float64]) -> None:
    difference, note = compare(differences_SN)
    assert difference.p is difference.low is difference.high is None
    assert note


def predictions(**right: dict[int, str]) -> dict[str, Predictions]:
    """`finetune={0: "1001"}`: right or wrong for the examples e0, e1, …"""
    return {
        method: {
            seed: {f"e{i}": mark == "1" for i, mark in enumerate(marks)}
            for seed, marks in by_seed.items()
        }
        for method, by_seed in right.items()
    }


def test_verdict() -> None:
    ceiling = Ceiling(0.9, None)
    found = verdict(
        predictions(
            finetune={0: "1000", 1: "1100", 2: "1000"},
            knife={2: "1111", 1: "1110", 0: "0110"},
            one={1: "1111"},
        ),
        ceiling=ceiling,
    )
    finetune, knife, one = found.methods
    assert finetune.accuracy == pytest.approx(1 / 3)
    assert (finetune.seeds, finetune.examples) == (3, 4)
    assert finetune.sd == pytest.approx(np.std([0.25, 0.5, 0.25], ddof=1))
    assert finetune.difference is None
    assert knife.accuracy == pytest.approx(0.75)
    assert knife.difference is not None
    assert knife.difference.points == pytest.approx(100 * (0.25 + 0.25 + 0.75) / 3)
    assert one.sd is None
    assert one.difference is not None
    assert (one.difference.points, one.difference.seeds) == (50, 1)
    assert found.notes == (
        "one: one seed: interval and p value cover the choice of examples alone, not the seed's.",
        "The p values are not adjusted for there being 2 comparisons.",
    )
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain == found.to_dict()
    assert plain["ceiling"] == {"with_rationale": 0.9, "without_rationale": None}


def test_examples_are_paired_by_id_not_by_order() -> None:
    by_seed = predictions(finetune={0: "1010"}, knife={0: "1011"})
    by_seed["knife"][0] = dict(reversed(by_seed["knife"][0].items()))
    difference = verdict(by_seed).methods[1].difference
    assert difference is not None
    expected = stats.ttest_1samp([0, 0, 0, 1], 0)
    assert difference.p == pytest.approx(expected.pvalue)


def test_without_the_baseline() -> None:
    found = verdict(predictions(knife={0: "10"}))
    assert found.methods[0].difference is None
    assert found.notes == (
        "finetune is not among the methods, so there is nothing to compare with.",
    )


@pytest.mark.parametrize(
    "wrong",
    [
        predictions(finetune={0: "10"}, knife={1: "10"}),
        predictions(finetune={0: "10"}, knife={0: "101"}),
        predictions(finetune={0: "10", 1: "101"}),
    ],
)
def test_what_cannot_be_paired(wrong: dict[str, Predictions]) -> None:
    with pytest.raises(AssertionError, match=r"share no seed|the same examples"):
        verdict(wrong)
