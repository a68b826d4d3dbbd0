from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import EXAMPLES, batch_of, tokens_of

from knife.core.errors import UserError
from knife.data.batches import Rows, collate, evaluation_rows, training_rows
from knife.data.example import Example
from knife.data.tokenizing import tokenize
from knife.data.tokens import Truncation, closes, task_input_text
from knife.models.tokenizer import load_tokenizer

WITHOUT = [replace(example, rationale=None) for example in EXAMPLES]


def test_task_input_is_the_same_with_and_without_rationale(model_folder: Path) -> None:
    with_rationale, pad = tokens_of(model_folder, EXAMPLES)
    without, _ = tokens_of(model_folder, WITHOUT)
    assert [t.input_ids for t in with_rationale] == [t.input_ids for t in without]
    assert [bool(t.rationale_ids) for t in with_rationale] == [bool(e.rationale) for e in EXAMPLES]
    teacher = batch_of(with_rationale, pad, rationale=True)
    student = batch_of(with_rationale, pad, rationale=False)
    columns = student.ids_BL.shape[1]
    own = student.input_mask_BL.bool()
    assert torch.equal(teacher.input_mask_BL[:, :columns], student.input_mask_BL)
    assert torch.equal(teacher.ids_BL[:, :columns][own], student.ids_BL[own])
    assert int(teacher.input_mask_BL[:, columns:].sum()) == 0


def test_the_rationale_follows_directly_without_a_second_opening(model_folder: Path) -> None:
    tokenizer = load_tokenizer(model_folder, "model")
    tokens, pad = tokens_of(model_folder, EXAMPLES)
    batch = batch_of(tokens, pad, rationale=True)
    for row, example in enumerate(tokens):
        whole = example.input_ids + example.rationale_ids
        assert batch.ids_BL[row, : len(whole)].tolist() == whole
        assert (batch.ids_BL[row, len(whole) :] == pad).all()
        assert int(batch.mask_BL[row].sum()) == len(whole)
        assert not {tokenizer.cls_token_id, tokenizer.bos_token_id} & set(whole[1:])


def test_choice_spans_are_the_text_of_the_choices(model_folder: Path) -> None:
    tokens, _ = tokens_of(model_folder, EXAMPLES)
    tokenizer = load_tokenizer(model_folder, "model")
    for example, own in zip(EXAMPLES, tokens, strict=True):
        text, characters = task_input_text(example)
        assert [text[start:end] for start, end in characters] == list(example.choices)
        spans = [own.input_ids[start:end] for start, end in own.choice_spans]
        # A choice by itself has the same tokens and the closing one.
        assert spans == [ids[:-1] for ids in own.choice_ids]
        closing = own.input_ids[-1] if closes(tokenizer) else tokenizer.eos_token_id
        assert all(ids[-1] == closing for ids in own.choice_ids)
        assert own.answer == example.answer


def test_choices_are_lettered_beyond_z() -> None:
    text, _ = task_input_text(Example("x", "q", tuple(map(str, range(28))), 0))
    assert "(a) 0 (b) 1" in text
    assert "(z) 25 (aa) 26 (ab) 27" in text


@settings(max_examples=25, deadline=None)
@given(room=st.integers(0, 40))
def test_truncation_takes_rationale_tokens_alone(model_folder: Path, room: int) -> None:
    tokenizer = load_tokenizer(model_folder, "model")
    whole, _ = tokenize(EXAMPLES, tokenizer, 1000)
    limit = max(len(t.input_ids) for t in whole) + room
    cut, truncation = tokenize(EXAMPLES, tokenizer, limit)
    lost = []
    for before, after in zip(whole, cut, strict=True):
        assert after.input_ids == before.input_ids
        assert len(after.input_ids) + len(after.rationale_ids) <= limit
        if len(before.input_ids) + len(before.rationale_ids) <= limit:
            assert after.rationale_ids == before.rationale_ids
            continue
        lost.append(len(before.input_ids) + len(before.rationale_ids) - limit)
        if after.rationale_ids:
            # The beginning of the rationale, closed like a complete one.
            kept = len(after.rationale_ids) - 1
            assert after.rationale_ids[:-1] == before.rationale_ids[:kept]
            assert after.rationale_ids[-1] == before.rationale_ids[-1]
    assert truncation == Truncation(len(lost), sum(lost))


def test_a_rationale_that_keeps_no_token_counts_as_none(model_folder: Path) -> None:
    tokenizer = load_tokenizer(model_folder, "model")
    some = next(e for e in EXAMPLES if e.rationale)
    length = len(tokenize([some], tokenizer, 1000)[0][0].input_ids)
    for limit, kept in ((length, 0), (length + 1, 0), (length + 2, 2)):
        tokens, truncation = tokenize([some], tokenizer, limit)
        assert len(tokens[0].rationale_ids) == kept
        assert truncation.rationales == 1
        batch = collate(tokens, Rows([0], [1.0]), 0, True)
        assert batch.explained_B.tolist() == [kept > 0]


def test_task_inputs_that_are_too_long_are_refused_and_counted(model_folder: Path) -> None:
    tokenizer = load_tokenizer(model_folder, "model")
    lengths = [len(t.input_ids) for t in tokenize(EXAMPLES, tokenizer, 1000)[0]]
    limit = max(lengths) - 1
    too_long = sum(length > limit for length in lengths)
    with pytest.raises(UserError) as caught:
        tokenize(EXAMPLES, tokenizer, limit)
    assert caught.value.errors == [
        f"data.max_tokens: {too_long} of {len(EXAMPLES)} task inputs are longer than {limit} "
        f"tokens (the longest has {max(lengths)}), and only rationales are truncated: raise "
        f"data.max_tokens to at least {max(lengths)}, if the models have that many positions, "
        "cut them (data.too_long=cut:COLUMN of the question), or leave such examples out "
        "(data.too_long=drop)"
    ]


def test_a_choice_without_a_token_is_the_users_error(tiny_bert: Path) -> None:
    # BERT's tokenizer drops control characters: nothing is left of this choice.
    odd = Example("odd", "which one ?", ("fish", "\u200b"), 0)
    tokenizer = load_tokenizer(tiny_bert, "model")
    with pytest.raises(UserError) as caught:
        tokenize([*EXAMPLES, odd], tokenizer, 128)
    assert caught.value.errors == [
        "example 'odd': the tokenizer returns no token for the choice '\\u200b'; "
        "give it characters that the model knows"
    ]


SIZES = st.lists(st.integers(1, 30), min_size=1, max_size=90)


@settings(max_examples=60, deadline=None)
@given(lengths=SIZES, batch_size=st.sampled_from([4, 8, 16]), seed=st.integers(0, 3))
def test_every_example_comes_once_an_epoch(lengths: list[int], batch_size: int, seed: int) -> None:
    batches = training_rows(lengths, batch_size, seed, epoch=1)
    real = [
        row
        for batch in batches
        for row, weight in zip(batch.rows, batch.weights, strict=True)
        if weight
    ]
    assert sorted(real) == list(range(len(lengths)))
    assert all(len(batch.rows) == len(batch.weights) == batch_size for batch in batches)
    assert len(batches) == -(-len(lengths) // batch_size)
    assert sorted(_real(evaluation_rows(lengths, batch_size))) == list(range(len(lengths)))


@settings(max_examples=60, deadline=None)
@given(lengths=SIZES, batch_size=st.sampled_from([4, 8, 16]))
def test_the_weighted_mean_is_the_mean_over_real_examples(
    lengths: list[int], batch_size: int
) -> None:
    for batch in training_rows(lengths, batch_size, 0, 0):
        rows = [row for row, weight in zip(batch.rows, batch.weights, strict=True) if weight]
        values = [row * 0.37 + 1 for row in batch.rows]
        weighted = sum(v * w for v, w in zip(values, batch.weights, strict=True)) / batch_size
        assert weighted == pytest.approx(sum(row * 0.37 + 1 for row in rows) / len(rows))


@settings(max_examples=30, deadline=None)
@given(lengths=SIZES, seed=st.integers(0, 3), epoch=st.integers(0, 3))
def test_workers_share_the_very_same_global_batches(
    lengths: list[int], seed: int, epoch: int
) -> None:
    for batch in training_rows(lengths, 8, seed, epoch):
        whole = sorted(zip(batch.rows, batch.weights, strict=True))
        for workers in (1, 2, 4):
            parts = [batch.part(number, workers) for number in range(workers)]
            assert all(len(part.rows) == 8 // workers for part in parts)
            together = [
                pair for part in parts for pair in zip(part.rows, part.weights, strict=True)
            ]
            assert sorted(together) == whole


def test_batches_hang_on_seed_and_epoch_alone() -> None:
    lengths = [row * 7 % 13 for row in range(100)]
    assert training_rows(lengths, 8, 0, 0) == training_rows(lengths, 8, 0, 0)
    orders = {
        tuple(row for batch in training_rows(lengths, 8, seed, epoch) for row in batch.rows)
        for seed in range(3)
        for epoch in range(3)
    }
    assert len(orders) == 9


def test_examples_of_a_batch_are_alike_in_length() -> None:
    lengths = [8 + row * 7 % 505 for row in range(3200)]
    batches = training_rows(lengths, 32, 0, 0)
    padded = sum(max(lengths[r] for r in b.rows) * len(b.rows) for b in batches)
    in_order = [lengths[i : i + 32] for i in range(0, len(lengths), 32)]
    without = sum(max(part) * len(part) for part in in_order)
    assert padded < 0.85 * without
    factors = [max(lengths[r] for r in b.rows) / min(lengths[r] for r in b.rows) for b in batches]
    assert sum(factor <= 2 for factor in factors) > 0.8 * len(factors)


def test_lengths_that_are_near_share_batches() -> None:
    """Two kinds of questions, one slightly longer, are not in separate batches."""
    lengths = [20, 24] * 320
    mixed = 0.0
    for epoch in range(50):
        batches = training_rows(lengths, 32, 0, epoch)
        mixed += sum(len({lengths[r] for r in b.rows}) == 2 for b in batches) / len(batches)
    assert mixed / 50 > 0.6


def test_missing_choices_are_marked(model_folder: Path) -> None:
    tokens, pad = tokens_of(model_folder, EXAMPLES)
    batch = batch_of(tokens, pad, rationale=False)
    counts = [len(example.choices) for example in EXAMPLES]
    assert batch.choice_exists_BC.sum(1).tolist() == counts
    assert batch.choice_exists_BC.shape[1] == 4
    for row, example in enumerate(tokens):
        for number in range(4):
            mask = batch.choice_mask_BCT[row, number]
            ids = batch.choice_ids_BCT[row, number][mask.bool()].tolist()
            assert ids == (example.choice_ids[number] if number < counts[row] else [])


def _real(batches: Sequence[Rows]) -> list[int]:
    return [r for b in batches for r, w in zip(b.rows, b.weights, strict=True) if w]
