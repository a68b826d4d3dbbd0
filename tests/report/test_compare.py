"""The comparison of two methods: against other libraries, by hand, and by simulation."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_paired

from knife.stats.compare import compare, holm, interval


def simulate(
    generator: np.random.Generator, seeds: int, examples: int, spread: float, gain: float = 0.0
) -> NDArray[np.float64]:
    """Simulate differences of two methods, with random effects of examples and seeds.

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
    """This is why the seeds' part of the variance is needed."""
    generator = np.random.default_rng(7)
    p = [
        stats.ttest_1samp(simulate(generator, 5, 200, 0.5).mean(axis=0), 0).pvalue
        for _ in range(300)
    ]
    assert np.mean(np.array(p) < 0.05) > 0.3


def test_the_interval_holds_the_truth() -> None:
    """A known gain: the second method is right on a fixed share of additional examples."""
    generator = np.random.default_rng(3)
    held = 0
    for _ in range(400):
        noise = generator.normal(0, 0.03, (5, 1)) + generator.normal(0, 0.5, (1, 300))
        difference, _ = compare(0.1 + noise + generator.normal(0, 0.5, (5, 300)))
        assert difference.low is not None
        assert difference.high is not None
        held += difference.low <= 10 <= difference.high
    assert held / 400 >= 0.93


def test_one_seed_is_mcnemars_exact_test_and_the_t_interval_over_examples() -> None:
    differences_SN = simulate(np.random.default_rng(1), 1, 150, 0.0, gain=0.6)
    difference, note = compare(differences_SN)
    result = stats.ttest_1samp(differences_SN[0], 0)
    expected = result.confidence_interval(0.95)
    gained, lost = int((differences_SN > 0).sum()), int((differences_SN < 0).sum())
    assert (difference.gained, difference.lost) == (gained, lost)
    table = [[100, gained], [lost, 100]]
    assert difference.p == pytest.approx(mcnemar(table, exact=True).pvalue, rel=1e-9)
    assert difference.low == pytest.approx(100 * expected.low)
    assert difference.high == pytest.approx(100 * expected.high)
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


@pytest.mark.parametrize("margin", [1.0, 5.0, 20.0])
def test_equivalence_of_one_seed_is_two_one_sided_t_tests(margin: float) -> None:
    differences_SN = simulate(np.random.default_rng(4), 1, 300, 0.0, gain=0.1)
    difference, _ = compare(differences_SN, margin)
    zeros = np.zeros(300)
    p, lower, _ = ttost_paired(differences_SN[0], zeros, -margin / 100, margin / 100)
    assert difference.p_equal == pytest.approx(p)
    assert difference.p_no_worse == pytest.approx(lower[1])


def test_a_method_that_is_worse_by_the_margin_seldom_passes_for_no_worse() -> None:
    generator = np.random.default_rng(5)
    passed = 0
    for _ in range(400):
        noise = generator.normal(0, 0.02, (3, 1)) + generator.normal(0, 0.3, (1, 300))
        found, _ = compare(-0.02 + noise + generator.normal(0, 0.3, (3, 300)), margin=2.0)
        assert found.p_no_worse is not None
        passed += found.p_no_worse < 0.05
    assert passed / 400 <= 0.07


def test_holm_is_that_of_statsmodels() -> None:
    generator = np.random.default_rng(6)
    for count in (1, 2, 5, 9):
        p = list(generator.random(count) ** 3)
        assert holm(p) == pytest.approx(list(multipletests(p, method="holm")[1]))
    assert holm([]) == []


def test_what_is_detectable_is_detected_four_times_of_five() -> None:
    generator = np.random.default_rng(8)

    def noise() -> NDArray[np.float64]:
        return generator.normal(0, 0.3, (1, 200)) + generator.normal(0, 0.3, (5, 200))

    detectable = [compare(noise())[0].detectable or 0 for _ in range(300)]
    gain = float(np.mean(detectable)) / 100
    p = [compare(gain + noise())[0].p for _ in range(300)]
    # The error is estimated, so this figure is not exact.
    assert 0.72 <= np.mean([value is not None and value < 0.05 for value in p]) <= 0.9


def test_the_interval_of_an_accuracy() -> None:
    generator, held = np.random.default_rng(9), 0
    for _ in range(300):
        chance_1N = generator.beta(2, 1, (1, 300))
        found = interval((generator.random((5, 300)) < chance_1N).astype(float))
        assert found is not None
        held += found[0] <= 2 / 3 <= found[1]
    assert held / 300 >= 0.92
    assert interval(np.ones((3, 10))) is None
    found = interval(np.array([[1.0, 1.0, 1.0, 0.0]]))
    assert found is not None
    assert found[1] == 1
