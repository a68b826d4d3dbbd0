"""Ties in the verdict: its notes, and how fractions of an answer are compared."""

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from knife.report.table import sentence
from knife.stats.compare import compare
from knife.stats.rationale_scores import Scored, rationale_scores, relation
from knife.stats.sign_flips import sign_flips
from knife.stats.ties import Ties, tie_notes
from knife.stats.verdict import verdict

# Differences of answers that count 0, 1/3, 1/2 or 1.
PARTS = (-1.0, -2 / 3, -1 / 2, -1 / 3, -1 / 6, 0.0, 1 / 6, 1 / 3, 1 / 2, 2 / 3, 1.0)


def by_enumeration(differences: list[float]) -> float:
    """Compute the test by its definition: all combinations of signs."""
    sizes = [abs(difference) for difference in differences]
    seen = abs(sum(differences)) - 1e-9
    sums = [
        abs(sum(map(float.__mul__, sizes, signs)))
        for signs in product([-1.0, 1.0], repeat=len(sizes))
    ]
    return sum(each >= seen for each in sums) / len(sums)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(PARTS), min_size=1, max_size=9))
def test_the_sign_test_is_exact(differences: list[float]) -> None:
    assert sign_flips(np.array(differences)) == pytest.approx(by_enumeration(differences))


def test_without_ties_it_is_mcnemars_exact_test() -> None:
    whole = np.array([1.0] * 12 + [-1.0] * 4 + [0.0] * 50)
    assert sign_flips(whole) == stats.binomtest(12, 16).pvalue
    assert compare(whole[None])[0].p == stats.binomtest(12, 16).pvalue
    # One tie among many answers hardly changes it.
    with_tie = np.append(whole, 0.5)
    assert sign_flips(with_tie) == pytest.approx(stats.binomtest(12, 16).pvalue, abs=0.03)
    # Nor if there are too many sums to list, when the normal distribution is used.
    many = np.array(([1 / 7] * 110 + [-1 / 11] * 90 + [1 / 13] * 50) * 40)
    spread = np.sqrt((many**2).sum())
    assert sign_flips(many) == pytest.approx(2 * stats.norm.sf(abs(many.sum()) / spread))


def test_the_test_holds_its_level_with_ties() -> None:
    generator = np.random.default_rng(3)
    worth = np.array([0.0, 1.0, 0.5, 1 / 3])
    found = [
        sign_flips(generator.choice(worth, 60) - generator.choice(worth, 60)) for _ in range(400)
    ]
    # 5 % of 400 has a standard error of 1.1 %.
    assert np.mean(np.array(found) < 0.05) <= 0.08


def test_fractions_are_compared_by_hand() -> None:
    ids = ["a", "b", "c", "d"]
    base = dict(zip(ids, [0.5, 0.5, 0.0, 1.0], strict=True))
    own = dict(zip(ids, [1.0, 0.0, 1 / 3, 1.0], strict=True))
    found = verdict({"finetune": {0: base}, "knife": {0: own}})
    finetune, knife = found.methods
    assert finetune.accuracy == 0.5
    assert knife.accuracy == pytest.approx(7 / 12)
    assert knife.difference is not None
    assert knife.difference.points == pytest.approx(100 / 12)
    # By sign, for any size.
    assert (knife.difference.gained, knife.difference.lost) == (2, 1)
    assert (knife.difference.gained_ids, knife.difference.lost_ids) == (("a", "c"), ("b",))
    assert knife.difference.p == pytest.approx(by_enumeration([0.5, -0.5, 1 / 3]))


def test_thirds_that_make_up_for_each_other_are_no_difference() -> None:
    ids = [f"e{n}" for n in range(6)]
    base = dict(zip(ids, [1 / 3] * 3 + [1.0, 0.0, 0.0], strict=True))
    own = dict(zip(ids, [1.0, 0.0, 0.0] + [1 / 3] * 3, strict=True))
    for seeds in (1, 3):
        found = verdict(
            {
                "finetune": dict.fromkeys(range(seeds), base),
                "knife": dict.fromkeys(range(seeds), own),
            }
        )
        assert "are right on equally many examples" in sentence(found)


def rows(*tied: list[int], untied: int = 0) -> list[dict[str, Any]]:
    """Return an evaluation's rows: answers with their tied choices, and others without a tie."""
    found: list[dict[str, Any]] = [{"probabilities": [0.3, 0.3, 0.3], "tied": t} for t in tied]
    return found + [{"probabilities": [0.8, 0.1, 0.1]}] * untied


def test_ties_are_told_by_model() -> None:
    some, none = Ties.of(rows([0, 1], [0, 2], untied=2)), Ties.of(rows(untied=4))
    assert (some, none) == (Ties(2, 4, False), Ties(0, 4, False))
    assert tie_notes({"finetune": [none], "knife": [none]}) == []
    assert tie_notes({"finetune": [none, some], "knife": [none, none]}) == [
        "tied answers: 2 of 8 (finetune); of k choices tied for the first place, the right one "
        "counts 1/k."
    ]


def test_a_model_that_tells_nothing_apart_is_warned_of() -> None:
    blind = Ties.of(rows([0, 1, 2], [0, 1, 2]))
    some = Ties.of(rows([0, 1], [0, 1, 2]))
    assert blind == Ties(2, 2, True)
    assert not some.blind
    assert not Ties.of([{"text": "x"}]).blind
    _, alone, one_of = tie_notes({"finetune": [blind], "knife": [some, blind]})
    assert alone == (
        "warning: finetune cannot tell choices apart: those of every test example are tied, so "
        "its accuracy is that of guessing."
    )
    assert one_of.startswith("warning: knife with 1 seed cannot tell choices apart")


def test_notes_on_ties_come_first() -> None:
    found = verdict({"knife": {0: {"a": 0.5, "b": 1.0}}}, ties=["tied answers: 1 of 2 (knife)"])
    assert found.notes[0] == "tied answers: 1 of 2 (knife)"
    assert found.methods[0].accuracy == 0.75


def scored(name: str, leaks: float, explained: float, without: float) -> Scored:
    return Scored(name, without, explained, leaks, -1.0, 0.0, 0.0, 1.0, 0.0)


def test_a_rationale_that_half_leaks_is_in_both_groups_by_half() -> None:
    found = rationale_scores(
        [scored("a", True, 1.0, 0.0), scored("b", 0.5, 0.5, 0.5), scored("c", False, 0.0, 0.5)], 1
    )
    assert found.rationale_only == 0.5
    assert found.gain_leaking == pytest.approx((1 * 1.0 + 0.5 * 0.0) / 1.5)
    assert found.gain_other == pytest.approx((0.5 * 0.0 + 1 * -0.5) / 1.5)


def test_no_third_depends_on_the_order_of_equal_scores() -> None:
    scores, gains = [0.0, 0.0, 0.0, 0.0, 1.0, 2.0], [1.0, 0.0, 0.0, 0.0, 0.5, 0.25]
    found = relation("REV", scores, gains)
    assert found.thirds == (0.25, 0.25, 0.375)
    assert relation("REV", scores[::-1], gains[::-1]) == found
