"""What an experiment can show, compared with the test itself by simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from knife.stats.compare import compare
from knife.stats.power import EXAMPLES, REST, SEEDS, design_note, detectable, enough

_SEEDS = st.integers(1, 10)
# Far beyond what is reasonable, with small numbers more often.
_EXAMPLES = st.one_of(st.integers(1, 50), st.integers(1, 5_000), st.integers(1, 1_000_000))


@pytest.mark.parametrize(("seeds", "examples"), [(3, 400), (5, 200), (2, 1000), (2, 4000)])
def test_the_difference_that_is_promised_is_found_four_times_of_five(
    seeds: int, examples: int
) -> None:
    generator, found = np.random.default_rng(0), 0
    for _ in range(300):
        values = detectable(seeds, examples) / 100 + generator.normal(0, SEEDS**0.5, (seeds, 1))
        values = values + generator.normal(0, EXAMPLES**0.5, (1, examples))
        values = values + generator.normal(0, REST**0.5, (seeds, examples))
        p = compare(values)[0].p
        found += p is not None and p < 0.05
    # The error is estimated too, so this figure is not exact.
    assert 0.72 <= found / 300 <= 0.92


@given(_SEEDS, _EXAMPLES, _SEEDS, _EXAMPLES)
def test_more_seeds_or_examples_never_show_less(
    seeds: int, examples: int, more_seeds: int, more_examples: int
) -> None:
    least = detectable(seeds + more_seeds, examples + more_examples)
    assert least <= detectable(seeds, examples + more_examples) <= detectable(seeds, examples)
    assert least <= detectable(seeds + more_seeds, examples) <= detectable(seeds, examples)


@given(st.integers(2, 10), st.integers(2, 1_000))
def test_what_is_detectable_is_computed_with_students_exact_quantiles(
    seeds: int, examples: int
) -> None:
    # The degrees of freedom of the error, and its quantiles, from scipy's distribution.
    rest = REST / (seeds * examples)
    parts = (EXAMPLES / examples + rest, examples - 1), (SEEDS / seeds + rest, seeds - 1)
    variance = sum(part for part, _ in parts)
    freedom = variance**2 / sum(part**2 / own for part, own in parts)
    exact = variance**0.5 * (stats.t.ppf(0.975, freedom) + stats.t.ppf(0.8, freedom))
    assert detectable(seeds, examples) == pytest.approx(min(100 * exact, 100), rel=1e-9)


def test_methods_are_not_told_apart_by_one_seed_or_one_example() -> None:
    assert detectable(1, 10**6) == detectable(9, 1) == math.inf
    assert detectable(2, 2) == 100


@given(st.integers(1, 10), st.integers(1, 10_000), st.floats(0.5, 50))
def test_advice_is_right_and_never_to_use_fewer_examples(
    seeds: int, examples: int, wanted: float
) -> None:
    found = enough(wanted, seeds, examples)
    for note in design_note(seeds, examples, wanted):
        assert found or note.endswith("; no reasonable number of seeds and examples does")
    if found is None:
        return
    assert found[0] >= seeds
    assert found[1] >= examples
    assert detectable(*found) <= wanted
    # Neither fewer seeds with any number of examples, nor fewer examples.
    assert found[0] == seeds or detectable(found[0] - 1, 100_000) > wanted
    assert found[1] == examples or detectable(found[0], found[1] - 1) > wanted


def test_two_seeds_lose_no_certainty_by_more_examples() -> None:
    # Under the assumed variances and without a difference: with few degrees of freedom, a test
    # whose error comes only from the seeds finds a difference in every tenth experiment.
    generator, found = np.random.default_rng(0), 0
    for _ in range(300):
        values = generator.normal(0, SEEDS**0.5, (2, 1))
        values = values + generator.normal(0, EXAMPLES**0.5, (1, 4000))
        values = values + generator.normal(0, REST**0.5, (2, 4000))
        found += (compare(values)[0].p or 0) < 0.05
    assert found / 300 <= 0.07


def test_enough_is_enough_and_no_more() -> None:
    found = enough(4.0, 3)
    assert found is not None
    seeds, examples = found
    assert seeds >= 3
    assert detectable(seeds, examples) <= 4 < detectable(seeds, examples - 1)
    assert enough(0.01, 3) is None
    assert (enough(5.0, 25) or (0, 0))[0] == 25
    assert (enough(5.0, 1) or (0, 0))[0] > 1


def test_notes() -> None:
    (note,) = design_note(3, 400, None)
    assert note.startswith("3 seeds and 400 test examples can show differences of about ")
    assert design_note(3, 400, 30.0) == []
    (note,) = design_note(1, 50, 3.0)
    assert note.startswith(
        "compare.difference: 1 seed and 50 test examples can show differences of "
    )
    assert "not 3; " in note
    # 5,000 examples show no less than 1,000, and fewer are never advised.
    assert design_note(2, 1000, 9.0) == design_note(2, 5000, 9.0) == []
    (note,) = design_note(2, 5000, 5.0)
    assert note.endswith("not 5; 3 seeds would")
    (note,) = design_note(3, 950, 5.0)
    assert note.endswith("not 5; 4 seeds or 2,113 test examples would")
    (note,) = design_note(3, 950, 3.0)
    assert note.endswith("not 3; 5 seeds and 21,507 test examples would")
    # One seed only shows differences between two trained students.
    (note,) = design_note(1, 950, None)
    assert "between these two students" in note
    (note,) = design_note(1, 950, 5.0)
    assert note.endswith("one seed shows nothing about the methods themselves; 4 seeds would")
    (note,) = design_note(1, 50, 0.01)
    assert note.endswith("no reasonable number of seeds and examples does")


@pytest.mark.parametrize("seeds", [1, 3])
def test_notes_of_one_example(seeds: int) -> None:
    assert design_note(seeds, 1, None) == ["one test example cannot show any difference"]
    (note,) = design_note(seeds, 1, 5.0)
    assert note.startswith("compare.difference: one test example cannot show any difference; ")
    assert note.endswith("2,113 test examples would")
