"""A tie is never right by its position: it counts as drawing one of its choices on average."""

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import EXAMPLES, tokens_of, wide, with_compatible_letters

from knife.data.example import Example
from knife.data.tokens import Tokens
from knife.method.objective import Objective
from knife.models.load import load_backbone
from knife.train.context import PlainContext
from knife.train.evaluate import (
    Answer,
    GenerationSpec,
    answer_split,
    at_the_top,
    choose,
    measures,
    predictions,
    right,
)

QUESTION = [7, 8, 9, 10]


def tokens(answer: int, *choices: int) -> Tokens:
    """Return an example whose choices are one token each."""
    spans = [(len(QUESTION) + place, len(QUESTION) + place + 1) for place in range(len(choices))]
    return Tokens([*QUESTION, *choices], [], [[c, 1] for c in choices], spans, answer)


@pytest.mark.parametrize(
    ("scores", "answer", "top", "worth"),
    [
        ([-1.0, -2.0, -3.0], 0, [0], Fraction(1)),
        ([-1.0, -2.0, -3.0], 1, [0], Fraction(0)),
        ([-1.0, -1.0, -3.0], 0, [0, 1], Fraction(1, 2)),
        ([-1.0, -1.0, -3.0], 1, [0, 1], Fraction(1, 2)),
        ([-1.0, -1.0, -3.0], 2, [0, 1], Fraction(0)),
        ([-1.0, -1.0, -1.0], 0, [0, 1, 2], Fraction(1, 3)),
        ([-1.0, -1.0, -1.0], 2, [0, 1, 2], Fraction(1, 3)),
        # A tie below the first place does not count.
        ([-1.0, -3.0, -3.0], 0, [0], Fraction(1)),
        ([0.0, 0.0, 0.0], 1, [0, 1, 2], Fraction(1, 3)),
        # Float32 does not have this precision.
        ([-6.0, -6.000001, -7.0], 1, [0, 1], Fraction(1, 2)),
        ([-6.0, -6.0001, -7.0], 0, [0], Fraction(1)),
    ],
)
def test_values_by_hand(scores: list[float], answer: int, top: list[int], worth: Fraction) -> None:
    example = tokens(answer, 20, 21, 22)
    assert at_the_top(scores, example) == top
    found = right(Answer(scores), example)
    assert Fraction(found).limit_denominator(100) == worth
    (row,) = predictions(["x"], [example], [Answer(scores)])
    assert row["right"] == found
    assert row["choice"] == choose(scores)
    assert row.get("tied", [row["choice"]]) == top
    # Rows without a tie have no extra field.
    assert ("tied" in row) == (len(top) > 1)
    assert isinstance(row["right"], bool) == (len(top) == 1 or worth == 0)


def test_choices_of_the_same_tokens_are_tied_whatever_their_scores() -> None:
    # An encoder scores them by their position in the list.
    example = tokens(2, 20, 21, 20)
    assert at_the_top([-0.5, -1.0, -2.0], example) == [0, 2]
    assert right(Answer([-0.5, -1.0, -2.0]), example) == 0.5
    assert right(Answer([-2.0, -1.0, -0.5]), example) == 0.5
    assert right(Answer([-2.0, -0.5, -1.0]), example) is False


def test_ties_are_counted_and_accuracy_is_their_expected_value() -> None:
    examples = [tokens(0, 20, 21, 22), tokens(1, 20, 21, 22), tokens(2, 20, 21, 22)]
    found = measures([Answer([-1.0] * 3)] * 3, examples)
    assert (found["accuracy"], found["ties"]) == (1 / 3, 3)
    assert found["loss"] == pytest.approx(math.log(3))
    found = measures([Answer([-1.0, -2.0, -3.0])] * 3, examples)
    assert (found["accuracy"], found["ties"]) == (1 / 3, 0)


@st.composite
def _split(draw: st.DrawFn) -> list[tuple[list[float], list[int], int]]:
    """Return scores, tokens and right choices of a split, with many ties of both kinds."""
    rows = []
    for _ in range(draw(st.integers(1, 6))):
        count = draw(st.integers(2, 5))
        ids = draw(st.lists(st.integers(20, 24), min_size=count, max_size=count))
        level = st.integers(-3, 0).map(float)
        scores = draw(st.lists(level, min_size=count, max_size=count))
        rows.append((scores, ids, draw(st.integers(0, count - 1))))
    return rows


@settings(max_examples=300, deadline=None)
@given(_split(), st.randoms(use_true_random=False))
def test_the_order_of_choices_never_changes_an_accuracy(
    split: list[tuple[list[float], list[int], int]], random: Any
) -> None:
    def found(rows: list[tuple[list[float], list[int], int]]) -> tuple[float, float]:
        examples = [tokens(answer, *ids) for _, ids, answer in rows]
        values = measures([Answer(scores) for scores, _, _ in rows], examples)
        return values["accuracy"], values["ties"]

    permuted = []
    for scores, ids, answer in split:
        order = list(range(len(ids)))
        random.shuffle(order)
        permuted.append(([scores[o] for o in order], [ids[o] for o in order], order.index(answer)))
    assert found(permuted) == found(split)


@settings(max_examples=100, deadline=None)
@given(_split())
def test_a_tie_is_worth_what_guessing_among_its_choices_is(
    split: list[tuple[list[float], list[int], int]],
) -> None:
    for scores, ids, _ in split:
        # Summed over all choices that could be right, the answer is right exactly once.
        worths = [right(Answer(scores), tokens(answer, *ids)) for answer in range(len(ids))]
        assert math.fsum(worths) == pytest.approx(1)


def test_no_family_is_right_by_the_place_of_a_choice(model_folder: Path, tmp_path: Path) -> None:
    folder = with_compatible_letters(model_folder, tmp_path / "nfkc")
    pair = ("forest", wide("forest"))
    examples = [
        Example("first", "which home ?", pair, 0),
        Example("second", "which home ?", pair, 1),
        Example("last", "which home ?", (*pair, "swamp", wide("swamp")), 3),
    ]
    split, pad = tokens_of(folder, [*examples, EXAMPLES[0]])
    model = Objective(load_backbone(folder)).eval()
    ids = list(map(str, range(len(split))))
    answers = answer_split(model, split, ids, pad, PlainContext(), GenerationSpec())
    rows = predictions([*"abcd"], split, answers)
    assert [row["right"] for row in rows[:2]] == [0.5, 0.5]
    assert rows[0]["tied"] == rows[1]["tied"] == [0, 1]
    assert rows[2]["right"] in (0.5, False)
    assert rows[2]["tied"] in ([0, 1], [2, 3])
    assert "tied" not in rows[3]


def test_a_model_that_tells_nothing_apart_is_at_chance(model_folder: Path) -> None:
    split, pad = tokens_of(model_folder, EXAMPLES)
    model = Objective(load_backbone(model_folder)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    ids = list(map(str, range(len(split))))
    answers = answer_split(model, split, ids, pad, PlainContext(), GenerationSpec())
    found = measures(answers, split)
    # For answers of one token and of several.
    assert found["ties"] == len(EXAMPLES)
    chance = math.fsum(1 / len(example.choices) for example in EXAMPLES) / len(EXAMPLES)
    assert found["accuracy"] == pytest.approx(chance)
