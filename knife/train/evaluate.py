"""Scoring a split: accuracy and loss while training, predictions by example at the end."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from knife.data.batches import Batch, collate, evaluation_rows
from knife.data.tokens import Tokens
from knife.method.objective import Losses
from knife.train.context import Context, gather

BATCH_SIZE = 64


def score_split(
    forward: Callable[[Batch], Losses],
    tokens: Sequence[Tokens],
    pad_id: int,
    context: Context,
    *,
    rationale: bool,
) -> list[list[float]]:
    """Scores of every example's choices, in the split's order, on every rank.

    All ranks make the same number of forward passes, which sharded weights need.
    """
    lengths = [len(t.input_ids) + rationale * len(t.rationale_ids) for t in tokens]
    own: list[tuple[int, list[float]]] = []
    with torch.no_grad():
        for rows in evaluation_rows(lengths, BATCH_SIZE * context.world_size):
            part = rows.part(context.rank, context.world_size)
            batch = collate(tokens, part, pad_id, rationale).to(context.device)
            scores_BC = forward(batch).scores_BC.float().cpu()
            context.beat()
            for row, weight, scores_C in zip(part.rows, part.weights, scores_BC, strict=True):
                if weight:
                    own.append((row, scores_C[: len(tokens[row].choice_ids)].tolist()))
    scores: list[list[float]] = [[] for _ in tokens]
    for part_scores in gather(own):
        for row, values in part_scores:
            scores[row] = values
    return scores


def probabilities(scores: Sequence[float]) -> list[float]:
    """Softmax over one example's choices."""
    top = max(scores)
    exponentials = [math.exp(score - top) for score in scores]
    return [e / sum(exponentials) for e in exponentials]


def accuracy_and_loss(
    scores: Sequence[Sequence[float]], tokens: Sequence[Tokens]
) -> tuple[float, float]:
    """Share of examples whose right choice scores highest, and mean cross-entropy over choices."""
    right, loss = 0, 0.0
    for values, example in zip(scores, tokens, strict=True):
        right += choose(values) == example.answer
        loss -= math.log(max(probabilities(values)[example.answer], 1e-30))
    return right / len(tokens), loss / len(tokens)


def choose(scores: Sequence[float]) -> int:
    """Index of the highest score, the first one of equals."""
    return max(range(len(scores)), key=scores.__getitem__)


def predictions(
    ids: Sequence[str], tokens: Sequence[Tokens], scores: Sequence[Sequence[float]]
) -> list[dict[str, Any]]:
    """One JSON-ready row an example: id, answer, choice, right, probabilities."""
    rows = []
    for name, example, values in zip(ids, tokens, scores, strict=True):
        choice = choose(values)
        rows.append(
            {
                "id": name,
                "answer": example.answer,
                "choice": choice,
                "right": choice == example.answer,
                "probabilities": [round(p, 6) for p in probabilities(values)],
            }
        )
    return rows
