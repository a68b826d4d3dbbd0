"""What an experiment can show, told before: against the test itself, by simulation."""

import numpy as np
import pytest
from scipy import stats

from knife.report.compare import compare
from knife.report.power import EXAMPLES, REST, SEEDS, _t, design_note, detectable, enough


@pytest.mark.parametrize(("seeds", "examples"), [(3, 400), (5, 200), (2, 1000)])
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
    # The error is estimated too, so that this is no exact figure.
    assert 0.72 <= found / 300 <= 0.92


@pytest.mark.parametrize("freedom", [2.0, 3.5, 10.0, 200.0])
@pytest.mark.parametrize("share", [0.8, 0.975])
def test_the_quantiles_are_students(share: float, freedom: float) -> None:
    assert _t(share, freedom) == pytest.approx(stats.t.ppf(share, freedom), rel=0.1 / freedom)


def test_more_shows_more() -> None:
    assert detectable(3, 400) > detectable(5, 400) > detectable(5, 1600)


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
    assert note.startswith("3 seeds and 400 test examples show differences of about ")
    assert design_note(3, 400, 30.0) == []
    (note,) = design_note(1, 50, 3.0)
    assert note.startswith("compare.difference: 1 seed and 50 test examples show differences of ")
    assert "not 3; " in note
    (note,) = design_note(1, 50, 0.01)
    assert note.endswith("no reasonable number of seeds and examples does")
