"""Subsets are nested, stratified, and independent of the order of the file."""

import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from knife.core.errors import UserError
from knife.data.example import Example
from knife.data.subset import class_names, hold_out, subset

CHOICES = ("a", "b", "c", "d", "e")


def make(answers: list[int]) -> list[Example]:
    return [Example(f"q{n}", f"question {n}?", CHOICES, answer) for n, answer in enumerate(answers)]


answer_lists = st.lists(st.integers(0, 4), min_size=1, max_size=80)
fractions = st.floats(0.01, 1)
seeds = st.integers(0, 5)


def subset_or_skip(examples: list[Example], fraction: float, seed: int) -> Sequence[Example]:
    """Return the subset; if a class would be lost, have Hypothesis draw again."""
    try:
        return subset(examples, fraction, seed)
    except UserError:
        assume(False)
        raise


@settings(deadline=None)
@given(answers=answer_lists, small=fractions, large=fractions, seed=seeds)
def test_nested(answers: list[int], small: float, large: float, seed: int) -> None:
    examples = make(answers)
    small, large = sorted((small, large))
    inner = subset_or_skip(examples, small, seed)
    assert subset(examples, large, seed)[: len(inner)] == inner


@settings(deadline=None)
@given(answers=answer_lists, fraction=fractions, seed=seeds)
def test_stratified(answers: list[int], fraction: float, seed: int) -> None:
    examples = make(answers)
    chosen = subset_or_skip(examples, fraction, seed)
    assert len(chosen) == max(1, round(fraction * len(examples)))
    assert len({example.id for example in chosen}) == len(chosen)
    whole, part = Counter(answers), Counter(example.answer for example in chosen)
    for answer, count in whole.items():
        share = count / len(examples)
        off = abs(part[answer] - share * len(chosen))
        assert off <= (1 - share) / 2 + share * (len(whole) - 1) / 2 + 1e-9
        if len(whole) <= 3:
            assert off < 1 + 1e-9


@settings(deadline=None)
@given(answers=answer_lists, fraction=fractions, seed=seeds, order=st.randoms())
def test_knows_no_file_order(
    answers: list[int], fraction: float, seed: int, order: random.Random
) -> None:
    examples = make(answers)
    moved = list(examples)
    order.shuffle(moved)
    assert subset_or_skip(moved, fraction, seed) == subset(examples, fraction, seed)
    kept, held = hold_out(examples, fraction, seed)
    moved_kept, moved_held = hold_out(moved, fraction, seed)
    assert (set(kept), set(held)) == (set(moved_kept), set(moved_held))


@settings(deadline=None)
@given(answers=answer_lists, share=fractions, seed=seeds)
def test_hold_out_parts_in_two(answers: list[int], share: float, seed: int) -> None:
    examples = make(answers)
    kept, held = hold_out(examples, share, seed)
    assert len(held) == max(1, round(share * len(examples)))
    held_ids = {example.id for example in held}
    assert kept == [example for example in examples if example.id not in held_ids]
    assert held == [example for example in examples if example.id in held_ids]


def test_seeds_give_other_subsets() -> None:
    examples = make([0, 1] * 100)
    chosen = [frozenset(e.id for e in subset(examples, 0.1, seed)) for seed in range(5)]
    assert len(set(chosen)) == 5


def test_is_frozen() -> None:
    # A different order would silently change every published subset.
    assert [e.id for e in subset(make([0, 1] * 10), 0.3, 0)] == [
        "q13",
        "q0",
        "q15",
        "q6",
        "q14",
        "q19",
    ]
    assert [e.id for e in hold_out(make([0, 1] * 10), 0.2, 0)[1]] == ["q1", "q2", "q5", "q14"]


def test_more_examples_of_a_class_do_not_reshuffle_it() -> None:
    first = [e.id for e in subset(make([0, 1] * 20), 1.0, 3) if e.answer == 0]
    second = [e.id for e in subset(make([0, 1] * 25), 1.0, 3) if e.answer == 0]
    assert [identity for identity in second if identity in first] == first


def test_classes_are_answers_where_choices_are_shared_in_any_order() -> None:
    examples = [Example("1", "?", ("yes", "no"), 0), Example("2", "?", ("no", "yes"), 0)]
    assert class_names(examples) == ["answer 'yes'", "answer 'no'"]
    examples.append(Example("3", "?", ("yes", "maybe"), 0))
    assert class_names(examples) == ["answer index 0"] * 3


@settings(deadline=None)
@given(counts=st.lists(st.integers(1, 30), min_size=2, max_size=5), fraction=fractions, seed=seeds)
def test_a_class_that_is_lost_is_a_error_and_the_advice_works(
    counts: list[int], fraction: float, seed: int
) -> None:
    examples = make([answer for answer, count in enumerate(counts) for _ in range(count)])
    try:
        chosen = subset(examples, fraction, seed)
    except UserError as error:
        (message,) = error.errors
        advised = float(message.rpartition(" ")[2])
        assert fraction < advised <= 1
        found = {example.answer for example in subset(examples, advised, seed)}
        assert found == set(range(len(counts)))
        # It is the smallest, up to the fourth digit.
        with pytest.raises(UserError):
            subset(examples, advised - 1 / len(examples), seed)
    else:
        assert {example.answer for example in chosen} == set(range(len(counts)))


def test_the_error_names_the_classes() -> None:
    with pytest.raises(UserError) as caught:
        subset(make([0] * 98 + [1, 2]), 0.1, 0)
    (error,) = caught.value.errors
    assert error == (
        "data.fraction: 0.1 of 100 examples leaves none with answer 'b' and none with answer 'c'; "
        "the smallest fraction that works is 0.51"
    )


def test_of_nothing_is_nothing() -> None:
    assert subset([], 0.5, 0) == []


@settings(deadline=None)
@given(
    questions=st.lists(st.integers(0, 9), min_size=2, max_size=60).filter(lambda q: len({*q}) > 1),
    share=st.floats(0.05, 0.5),
    seed=seeds,
)
def test_a_question_is_never_on_both_sides(questions: list[int], share: float, seed: int) -> None:
    examples = [
        Example(
            f"q{n}", f"Question  {question} ?" if n % 2 else f"question {question} ?", CHOICES, 0
        )
        for n, question in enumerate(questions)
    ]
    kept, held = hold_out(examples, share, seed)
    assert kept
    assert held
    words = [{example.question.split()[1] for example in part} for part in (kept, held)]
    assert not words[0] & words[1]
    # No more than requested is held out, unless one question occurs more often than that.
    often = min(questions.count(question) for question in questions)
    assert len(held) <= max(often, round(share * len(examples)))


def test_one_question_alone_is_parted_all_the_same() -> None:
    examples = [Example(f"q{n}", "question ?", CHOICES, 0) for n in range(10)]
    kept, held = hold_out(examples, 0.2, 0)
    assert (len(kept), len(held)) == (8, 2)
