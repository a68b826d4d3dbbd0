"""Scores of what students wrote, by hand."""

import pytest

from knife.report.rationale_table import written_rows
from knife.stats.written_scores import Reply, written_scores


def replies(*rows: tuple[float, float, str, str], choices: int = 0) -> list[Reply]:
    return [Reply(*row, choices) for row in rows]


def test_by_hand() -> None:
    """Two seeds, four examples: the teacher is right in 3 and in 2 of 4, finetune in half."""
    one = replies(
        (0.5, 1, "yes", "yes"), (0.5, 1, "yes", "no"), (0.5, 1, "no", "no"), (0.5, 0, "no", "no")
    )
    two = replies(
        (0.5, 1, "yes", "yes"), (0.5, 0, "yes", "yes"), (0.5, 1, "yes", "no"), (0.5, 0, "no", "no")
    )
    found = written_scores("step_by_step", [one, two])
    assert (found.method, found.seeds, found.examples) == ("step_by_step", 2, 4)
    assert found.rq == pytest.approx(100 * (5 / 8 - 0.5))
    assert found.rq_low is not None
    assert found.rq_high is not None
    assert found.rq_low < found.rq < found.rq_high
    assert found.consistency == pytest.approx(6 / 8)
    # yes: 2 of 4 and 1 of 4, no: 2 of 4 and 3 of 4; then 3 of 4 and 2 of 4, and 1 and 2 of 4.
    assert found.by_chance == pytest.approx((8 / 16 + 8 / 16) / 2)


def test_an_oracle_that_copies_its_answer_is_consistent() -> None:
    texts = ["yes", "no", "no", "yes", "yes"]
    found = written_scores("explain_then_answer", [replies(*((0, 1, t, t) for t in texts))])
    assert (found.consistency, found.rq) == (1, 100)


def test_where_choices_differ_chance_is_one_of_them() -> None:
    rows = replies((0, 0, "a", "b"), (0, 0, "c", "c"), choices=4)
    rows += replies((0, 0, "x", "y"), choices=2)
    found = written_scores("answer_then_explain", [rows])
    assert found.by_chance == pytest.approx((1 / 4 + 1 / 4 + 1 / 2) / 3)


def test_one_example_has_no_interval() -> None:
    found = written_scores("answer_then_explain", [replies((0, 1, "a", "a"))])
    assert (found.rq_low, found.p, found.consistency_low) == (None, None, None)
    assert written_rows([found]) == [("answer_then_explain", "+100.0", "100.0", "100.0")]
