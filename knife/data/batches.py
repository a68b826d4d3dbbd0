"""Token batches of examples of similar length: the same global batches at any number of workers.

Shapes: B examples, L tokens of task input and rationale, C choices, T tokens per choice.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from knife.data.tokens import Tokens

# Bucketing by length within stretches of this many batches keeps padding small and order random.
_STRETCH = 50


@dataclass(frozen=True, slots=True)
class Batch:
    """Padded tensors of some examples.

    Attributes:
        row_B: each example's row in its split, the key to its teacher states.
        ids_BL: tokens of `[I]` or `[I ; R]`, then padding.
        mask_BL: 1 at tokens, 0 at padding.
        input_mask_BL: 1 at task-input tokens only.
        content_mask_BL: 1 at task-input tokens that carry content.
        words_BL2: the words that a task-input token belongs to: the first and one past the last,
            equal if there is none.
        choice_ids_BCT: prefix tokens followed by the choice's tokens, 0 at padding.
        choice_mask_BCT: 1 at the choices' own tokens.
        choice_spans_BC2: the span of each choice in the task input.
        choice_exists_BC: which choices an example has.
        answer_B: index of the right choice.
        open_B: whether the answer is free text.
        weight_B: weight of an example's loss: 0 for one that only fills up the batch; the mean
            over a whole global batch is 1.
        explained_B: whether the example has a rationale.
    """

    row_B: Tensor
    ids_BL: Tensor
    mask_BL: Tensor
    input_mask_BL: Tensor
    content_mask_BL: Tensor
    words_BL2: Tensor
    choice_ids_BCT: Tensor
    choice_mask_BCT: Tensor
    choice_spans_BC2: Tensor
    choice_exists_BC: Tensor
    answer_B: Tensor
    open_B: Tensor
    weight_B: Tensor
    explained_B: Tensor

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on another device."""
        moved = {f.name: getattr(self, f.name).to(device) for f in fields(self)}
        return replace(self, **moved)


@dataclass(frozen=True, slots=True)
class Rows:
    """The examples of a global batch, or of a part of one: their rows and weights, in order."""

    rows: list[int]
    weights: list[float]

    def part(self, number: int, parts: int) -> "Rows":
        """Return one of `parts` parts; neighbours in length go to different parts.

        If the parts differ in size, the weights compensate: the mean over the parts of each
        part's mean loss is the mean loss of the whole.
        """
        rows, weights = self.rows[number::parts], self.weights[number::parts]
        if len(self.rows) % parts:
            share = len(rows) * parts / len(self.rows)
            weights = [weight * share for weight in weights]
        return Rows(rows, weights)


def training_rows(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[Rows]:
    """Return the global batches of one epoch: every example once, shuffled by seed and epoch.

    Lengths within a factor of two share batches, with random bucket limits for every stretch of
    batches. Finer sorting would put questions of one kind into separate batches, and a
    student would unlearn one kind while it learns another. Incomplete batches are filled up with
    examples of weight 0, so that each has `batch_size` rows.
    """
    order = list(range(len(lengths)))
    generator = random.Random(f"{seed}/{epoch}")
    generator.shuffle(order)
    stretch = _STRETCH * batch_size
    batches = []
    for start in range(0, len(order), stretch):
        offset = generator.random()
        part = order[start : start + stretch]
        part.sort(key=lambda row: math.floor(math.log2(max(1, lengths[row])) + offset))
        batches += [part[i : i + batch_size] for i in range(0, len(part), batch_size)]
    generator.shuffle(batches)
    # Sorted within a batch, so that the parts of a batch have similar lengths.
    return [_filled(sorted(rows, key=lengths.__getitem__), batch_size) for rows in batches]


def evaluation_rows(lengths: Sequence[int], batch_size: int) -> list[Rows]:
    """Return all examples, sorted by length, in batches of `batch_size`; the last is filled up."""
    order = sorted(range(len(lengths)), key=lambda row: lengths[row])
    starts = range(0, len(order), batch_size)
    return [_filled(order[i : i + batch_size], batch_size) for i in starts]


def _filled(rows: list[int], batch_size: int) -> Rows:
    missing = batch_size - len(rows)
    weights = [batch_size / len(rows)] * len(rows) + [0.0] * missing
    return Rows(rows + [rows[0]] * missing, weights)


def collate(tokens: Sequence[Tokens], rows: Rows, pad_id: int, rationale: bool) -> Batch:
    """Pad the examples of `rows` to a batch; with `rationale`, `R` directly follows `I`."""
    examples = [tokens[row] for row in rows.rows]
    sequences = [e.input_ids + (e.rationale_ids if rationale else []) for e in examples]
    count, length = len(examples), max(map(len, sequences))
    # An open question without a known answer has no choice.
    choices = max(1, *(len(e.choice_ids) for e in examples))
    widths = (len(e.prefix_ids) + len(ids) for e in examples for ids in e.choice_ids)
    width = max(widths, default=1)
    # Filled as arrays of numpy, which takes lists several times faster than torch.
    ids_BL = np.full((count, length), pad_id)
    mask_BL, input_mask_BL, content_mask_BL = np.zeros((3, count, length), dtype=np.int64)
    words_BL2 = np.zeros((count, length, 2), dtype=np.int64)
    choice_ids_BCT, choice_mask_BCT = np.zeros((2, count, choices, width), dtype=np.int64)
    choice_spans_BC2 = np.zeros((count, choices, 2), dtype=np.int64)
    choice_exists_BC = np.zeros((count, choices), dtype=bool)
    for b, (example, sequence) in enumerate(zip(examples, sequences, strict=True)):
        ids_BL[b, : len(sequence)] = sequence
        mask_BL[b, : len(sequence)] = 1
        input_mask_BL[b, : len(example.input_ids)] = 1
        content_mask_BL[b, example.content] = 1
        if example.words:
            words_BL2[b, : len(example.words)] = example.words
        choice_exists_BC[b, : len(example.choice_ids)] = True
        if example.choice_spans:
            choice_spans_BC2[b, : len(example.choice_spans)] = example.choice_spans
        before = len(example.prefix_ids)
        for c, ids in enumerate(example.choice_ids):
            whole = example.prefix_ids + ids
            choice_ids_BCT[b, c, : len(whole)] = whole
            choice_mask_BCT[b, c, before : len(whole)] = 1
    return Batch(
        row_B=torch.tensor(rows.rows),
        ids_BL=torch.from_numpy(ids_BL),
        mask_BL=torch.from_numpy(mask_BL),
        input_mask_BL=torch.from_numpy(input_mask_BL),
        content_mask_BL=torch.from_numpy(content_mask_BL),
        words_BL2=torch.from_numpy(words_BL2),
        choice_ids_BCT=torch.from_numpy(choice_ids_BCT),
        choice_mask_BCT=torch.from_numpy(choice_mask_BCT),
        choice_spans_BC2=torch.from_numpy(choice_spans_BC2),
        choice_exists_BC=torch.from_numpy(choice_exists_BC),
        answer_B=torch.tensor([e.answer for e in examples]),
        open_B=torch.tensor([e.open for e in examples]),
        weight_B=torch.tensor(rows.weights),
        explained_B=torch.tensor([bool(e.rationale_ids) for e in examples]),
    )
