"""Tokens as an Arrow table are the same tokens, and a quick look finds what a slow one does."""

from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small import EXAMPLES, tokens_of

from knife.data.same_tokens import first_alike
from knife.data.token_table import (
    Changed,
    TokenTable,
    lists,
    longest_choice,
    picked,
    possibly_alike,
    sequence_lengths,
    token_columns,
    with_rationale,
)
from knife.data.tokenizing import _token_span, token_spans
from knife.data.tokens import Tokens

ids = st.lists(st.integers(0, 3), max_size=3)


@st.composite
def tokens(draw: st.DrawFn) -> Tokens:
    inputs = draw(st.lists(st.integers(0, 2), min_size=1, max_size=6))
    places = st.tuples(st.integers(0, len(inputs)), st.integers(0, len(inputs)))
    choices = draw(st.lists(st.tuples(ids, places.map(sorted)), max_size=4))
    return Tokens(
        inputs,
        draw(ids),
        [own for own, _ in choices],
        [(first, last) for _, (first, last) in choices],
        draw(st.integers(-1, 3)),
        answer_text=draw(st.sampled_from(["", "é"])),
        content=draw(ids),
        words=draw(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=3)),
    )


def table_of(examples: list[Tokens]) -> TokenTable:
    def flat(values: list[list[int]]) -> object:
        return lists(
            np.array(list(chain.from_iterable(values)), dtype=np.int32),
            [len(each) for each in values],
        )

    return TokenTable.of_batches(
        [
            token_columns(
                input_ids=flat([each.input_ids for each in examples]),
                rationale_ids=flat([each.rationale_ids for each in examples]),
                choice_ids=lists(
                    flat([own for each in examples for own in each.choice_ids]),
                    [len(each.choice_ids) for each in examples],
                ),
                choice_spans=flat([[n for s in each.choice_spans for n in s] for each in examples]),
                answer=[each.answer for each in examples],
                open=[each.open for each in examples],
                answer_text=[each.answer_text for each in examples],
                content=flat([each.content for each in examples]),
                words=flat([[n for pair in each.words for n in pair] for each in examples]),
            )
        ]
    )


@given(st.lists(tokens(), max_size=6), st.data())
def test_a_table_has_the_same_tokens(examples: list[Tokens], data: st.DataObject) -> None:
    whole = table_of(examples)
    assert whole == examples
    assert [whole[row] for row in range(len(whole))] == examples
    rows = data.draw(st.lists(st.sampled_from(range(len(examples))))) if examples else []
    for table, own in ((whole, examples), (picked(whole, rows), picked(examples, rows))):
        assert table == own
        assert with_rationale(table) == with_rationale(own)
        for rationale in (False, True):
            assert sequence_lengths(table, rationale=rationale) == sequence_lengths(
                own, rationale=rationale
            )
        if any(each.choice_ids for each in own):
            assert longest_choice(table) == longest_choice(own)
    assert list(Changed(whole, lambda each: each)[1:]) == examples[1:]


@given(st.lists(tokens(), max_size=6))
def test_the_quick_look_for_equal_choices_misses_none(examples: list[Tokens]) -> None:
    found = possibly_alike(table_of(examples))
    first = [first_alike(each) for each in examples]
    assert found == [row for row, each in enumerate(first) if len(set(each)) < len(each)]


def test_a_file_has_the_same_tokens(tmp_path: Path, model_folder: Path) -> None:
    made, _ = tokens_of(model_folder, EXAMPLES)
    made.write(tmp_path / "some.arrow")
    found = TokenTable.open(tmp_path / "some.arrow")
    assert found == made
    assert found.digest() == made.digest()
    shorter, _ = tokens_of(model_folder, EXAMPLES[:-1])
    assert shorter.digest() != made.digest()


@pytest.mark.parametrize("ordered", [True, False])
@given(data=st.data())
def test_token_spans_are_those_of_a_slow_search(ordered: bool, data: st.DataObject) -> None:
    """Also for tokens that share characters, have none, or are in another order."""
    span = st.tuples(st.integers(0, 8), st.integers(0, 8)).map(lambda s: (min(s), max(s)))
    offsets, spans = [], []
    for _ in range(data.draw(st.integers(1, 4))):
        places = data.draw(st.lists(span, max_size=6))
        if ordered:
            starts, ends = sorted(p[0] for p in places), sorted(p[1] for p in places)
            places = list(zip(starts, ends, strict=True))
        # A closing special token.
        offsets.append([*places, (0, 0)])
        spans.append(data.draw(st.lists(span.filter(lambda s: 0 < s[0] < s[1]), max_size=3)))
    found = token_spans([8] * len(spans), spans, offsets).tolist()
    pairs = zip(offsets, spans, strict=True)
    assert found == [list(_token_span(own, each)) for own, some in pairs for each in some]
