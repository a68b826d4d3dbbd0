"""What a probe says of answers and rationales, by hand."""

import numpy as np
import pytest

from knife.report.probe_table import probe_rows
from knife.stats.probe import Probe, agreement, levels


def falling(
    *shares: float, examples: int = 400
) -> "np.ndarray[tuple[int, ...], np.dtype[np.float64]]":
    """Return by level, one draw, and example whether it is right: so many of them."""
    rows = [np.arange(examples) < round(share * examples) for share in shares]
    return np.array(rows, dtype=np.float64)[:, None]


def test_what_falls_together_is_alike() -> None:
    found = levels((0.0, 0.5, 1.0), falling(0.9, 0.7, 0.5), falling(0.4, 0.2, 0.0), 0.5)
    assert [level.accuracy for level in found] == pytest.approx([0.9, 0.7, 0.5])
    assert [level.rq for level in found] == pytest.approx([0.4, 0.2, 0.0])
    for level, left in zip(found, (1.0, 0.5, 0.0), strict=True):
        assert level.answers_left is not None
        assert level.answers_left[0] == pytest.approx(left)
        assert level.answers_left[1] <= left <= level.answers_left[2] + 1e-9
        assert level.rationales_left is not None
        assert level.rationales_left[0] == pytest.approx(left)
        assert level.alike
    said = Probe("explain_then_answer", 0, 400, found, None).lines()
    assert "fall alike with noise" in said[0]
    assert "no agreement has a control" in said[1]


def test_rationales_that_stay_while_answers_fall_part() -> None:
    found = levels((0.0, 0.5, 1.0), falling(0.9, 0.9, 0.55), falling(0.4, 0.4, 0.38), 0.5)
    assert [level.alike for level in found] == [True, True, False]
    probe = Probe("answer_then_explain", 0, 400, found, None)
    assert "part at noise 1" in probe.lines()[0]
    rows = probe_rows(probe)
    assert rows[0][0] == "answer_then_explain"
    assert rows[1][:3] == ("0", "90.0", "+40.0")
    assert rows[3][4].endswith(" unlike")


def test_students_that_guess_have_nothing_to_lose() -> None:
    found = levels((0.0, 1.0), falling(0.5, 0.5), falling(0.4, 0.1), 0.5)
    assert [level.answers_left for level in found] == [None, None]
    assert [level.alike for level in found] == [None, None]
    assert "is unknown" in Probe("step_by_step", 0, 400, found, None).lines()[0]


def test_few_examples_that_could_all_be_wrong_by_chance_have_an_interval() -> None:
    """Some samples of five examples, one of which is right, have none that is; these do not say
    what is left."""
    found = levels((0.0, 1.0), falling(0.8, 0.4, examples=5), falling(0.8, 0.4, examples=5), 0.0)
    for level in found:
        assert level.answers_left is not None
        assert np.isfinite(level.answers_left).all()


def test_agreement_is_what_the_form_of_questions_does_not_explain() -> None:
    rng = np.random.default_rng(0)
    # Each question has a place that matters for both, and all of them a form.
    own = []
    form = np.arange(12.0)
    for _ in range(80):
        content = rng.normal(size=12) * 4
        own.append((form + content + rng.normal(size=12), form + content + rng.normal(size=12)))
    found = agreement(own)
    assert found is not None
    assert found.examples == 80
    assert found.own > found.other > 0.2
    assert found.low is not None
    assert found.low > 0.1
    alone = agreement([(form + rng.normal(size=12), form + rng.normal(size=12)) for _ in range(80)])
    assert alone is not None
    assert alone.own > 0.8
    # All of it is form: the control has it too.
    assert alone.low is not None
    assert alone.high is not None
    assert alone.low < 0 < alone.high


def test_importances_without_an_order_do_not_count() -> None:
    flat, slope = np.zeros(4), np.arange(4.0)
    assert agreement([(slope, flat), (flat, slope)]) is None


def test_questions_of_unlike_lengths_have_no_control() -> None:
    assert agreement([(np.arange(float(n)), np.arange(float(n))) for n in (3, 4, 5)]) is None
