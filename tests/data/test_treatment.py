"""Treatments of rationales change only rationales, and do what their names say."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knife.data.example import Example
from knife.data.treatment import corrupt, truncate

rationale_lists = st.lists(st.none() | st.sampled_from(["r", "s", "t", "u v w"]), max_size=30)
seeds = st.integers(0, 5)
shares = st.floats(0, 1).map(lambda share: round(share, 3))
TREATMENTS = ["given", "none", "shuffled", "dropped:0.5", "truncated:0.5"]


def make(rationales: list[str | None]) -> list[Example]:
    return [
        Example(f"q{n}", f"question {n}?", ("yes", "no"), n % 2, rationale)
        for n, rationale in enumerate(rationales)
    ]


def rationales(examples: Sequence[Example]) -> list[str | None]:
    return [example.rationale for example in examples]


@pytest.mark.parametrize("treatment", TREATMENTS)
@settings(deadline=None)
@given(given_rationales=rationale_lists, seed=seeds)
def test_nothing_else_changes(
    treatment: str, given_rationales: list[str | None], seed: int
) -> None:
    examples = make(given_rationales)
    treated = corrupt(examples, treatment, seed)
    assert [replace(e, rationale=None) for e in treated] == [
        replace(e, rationale=None) for e in examples
    ]
    for before, after in zip(examples, treated, strict=True):
        if before.rationale is None:
            assert after.rationale is None
    assert corrupt(examples, treatment, seed) == treated


@pytest.mark.parametrize("treatment", TREATMENTS)
@settings(deadline=None)
@given(given_rationales=rationale_lists, seed=seeds)
def test_knows_no_file_order(treatment: str, given_rationales: list[str | None], seed: int) -> None:
    examples = make(given_rationales)
    assert corrupt(examples[::-1], treatment, seed)[::-1] == corrupt(examples, treatment, seed)


def test_given_and_none() -> None:
    examples = make(["one", None, "two"])
    assert corrupt(examples, "given", 0) == examples
    assert rationales(corrupt(examples, "none", 0)) == [None, None, None]


@settings(deadline=None)
@given(given_rationales=rationale_lists, seed=seeds)
def test_shuffled_moves_every_rationale_to_another_text_where_it_can(
    given_rationales: list[str | None], seed: int
) -> None:
    examples = make(given_rationales)
    shuffled = corrupt(examples, "shuffled", seed)
    counts = Counter(rationales(examples))
    assert Counter(rationales(shuffled)) == counts
    del counts[None]
    same = sum(
        before.rationale == after.rationale is not None
        for before, after in zip(examples, shuffled, strict=True)
    )
    # A text that more than half of the examples have must stay on some of them.
    assert same == max(0, 2 * max(counts.values(), default=0) - counts.total())


def test_shuffled_leaves_no_example_its_own_and_differs_by_seed() -> None:
    examples = make([f"rationale {n}" for n in range(50)])
    results = {tuple(rationales(corrupt(examples, "shuffled", seed))) for seed in range(5)}
    assert len(results) == 5
    for result in results:
        assert all(a != b for a, b in zip(result, rationales(examples), strict=True))


@settings(deadline=None)
@given(given_rationales=rationale_lists, small=shares, large=shares, seed=seeds)
def test_dropped_is_exact_and_nested(
    given_rationales: list[str | None], small: float, large: float, seed: int
) -> None:
    examples = make(given_rationales)
    have = sum(rationale is not None for rationale in given_rationales)
    small, large = sorted((small, large))
    kept = []
    for share in (small, large):
        treated = corrupt(examples, f"dropped:{share:f}", seed)
        kept.append({example.id for example in treated if example.rationale is not None})
        assert len(kept[-1]) == have - round(share * have)
    assert kept[1] <= kept[0]


def test_dropped_differs_by_seed() -> None:
    examples = make(["r"] * 50)
    results = {tuple(rationales(corrupt(examples, "dropped:0.5", seed))) for seed in range(5)}
    assert len(results) == 5


@pytest.mark.parametrize(
    ("text", "share", "left"),
    [
        ("one two three four", 0.5, "one two"),
        ("one two three", 0.5, "one two"),
        ("one", 0.5, "one"),
        ("one", 1.0, None),
        ("one two", 1.0, None),
        (" one  two\nthree four ", 0.25, " one  two\nthree"),
        (" as it is ", 0.0, " as it is "),
        (" ".join("abcdefghij"), 0.3, " ".join("abcdefg")),
        (" ".join("abcdefghij"), 0.9, "a"),
        (" ".join(["w"] * 100), 0.29, " ".join(["w"] * 71)),
    ],
)
def test_truncated_removes_words_from_the_end(text: str, share: float, left: str | None) -> None:
    assert truncate(text, share) == left
    assert rationales(corrupt(make([text, None]), f"truncated:{share}", 0)) == [left, None]


@settings(deadline=None)
@given(text=st.text(), small=shares, large=shares)
def test_truncated_is_nested(text: str, small: float, large: float) -> None:
    small, large = sorted((small, large))
    longer, shorter = truncate(text, small) or "", truncate(text, large) or ""
    assert longer.startswith(shorter)
    assert text.startswith(longer)
    assert len(shorter.split()) == len(text.split()) - int(large * len(text.split()) + 1e-9)
