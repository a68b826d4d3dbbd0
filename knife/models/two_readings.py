"""Decoder-only backbone for families that no attention mask can guide (Mamba, Qwen3.5, Bloom, …).

Recurrent and convolutional layers ignore a mask; windows, and biases on distances, count columns.
Here such a model only reads plain texts:

1. `[R ; I]`, once; the states of `I` that enter each layer are kept;
2. `[I ; O]` for each choice; at `I`, the kept states enter each layer in place of its own.

`O` then depends on the states of `I` alone, through attention, convolution or recurrence alike: the
bottleneck. Without a rationale, the first reading is left out; without the bottleneck, the only
reading is of `[R ; I ; O]`. `R`, `I` and `O` are the texts of `decoder_only`. Shapes as in `base`;
A columns of an answer.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from knife.data.batches import Batch
from knife.data.tokens import answer_start
from knife.models.base import Backbone, Output, choice_scores
from knife.models.generation import Prefix, finite, up_to
from knife.models.reading import Given, Reading, Span, read
from knife.models.tokenizer import load_tokenizer
from knife.models.weights import load_whole


class TwoReadings(Backbone):
    """A backbone around a causal language model that reads plain texts."""

    def __init__(self, folder: Path, *, bottleneck: bool = True) -> None:
        super().__init__(folder, bottleneck=bottleneck)
        self.model = load_whole(AutoModelForCausalLM, folder)
        self._set_sizes(self.model.config)
        tokenizer = load_tokenizer(folder, "model")
        self._start = answer_start(tokenizer)
        self.eos: int = tokenizer.eos_token_id

    def forward(self, batch: Batch, layers: Sequence[int] = ()) -> Output:
        """Score a choice by the mean log-probability of its tokens, including the closing one."""
        B, C, T = batch.choice_ids_BCT.shape
        start_BCS = torch.tensor(self._start, device=batch.ids_BL.device).expand(B, C, -1)
        answer_BCA = torch.cat([start_BCS, batch.choice_ids_BCT[..., :-1]], -1)
        inputs, answers = self._readings(batch, answer_BCA, T)
        # Rows of the same task input, one for each choice, have the same states there.
        each = len(inputs.last_XWH) // B
        states = [*inputs.entering[1:], inputs.last_XWH]
        logits_BNV = answers.logits_XWV.reshape(B, C * T, -1)
        return Output(
            scores_BC=choice_scores(logits_BNV, batch),
            input_states={layer: _first(states[layer - 1])[::each] for layer in layers},
            input_mask_BI=batch.input_mask_BL[:, : inputs.last_XWH.shape[1]],
            output_states_BCTH=answers.outputs_XWH.view(B, C, T, -1),
            output_mask_BCT=batch.choice_mask_BCT,
        )

    @torch.no_grad()
    def generate(
        self,
        batch: Batch,
        max_tokens: int,
        eos_count: int = 1,
        *,
        prefix: Prefix | None = None,
        synced_gpus: bool = False,
    ) -> list[list[int] | None]:
        """Generate tokens for each example, until it has `eos_count` closing tokens; None if the
        model's outputs were not finite.

        Each token is predicted by new readings: a cache would hold what layers made of their own
        states at `I`.
        """
        B, start = len(batch.row_B), len(self._start)
        answer_B1A = torch.tensor(self._start, device=batch.ids_BL.device).expand(B, 1, -1)
        closed_B = torch.zeros_like(batch.row_B)
        bad_B = torch.zeros_like(closed_B, dtype=torch.bool)
        for step in range(max_tokens):
            if not synced_gpus and bool((closed_B >= eos_count).all()):
                break
            logits_BV = self._readings(batch, answer_B1A, 1)[1].logits_XWV[:, 0]
            bad_B |= (closed_B < eos_count) & ~finite(logits_BV)
            ids_B = logits_BV.argmax(-1)
            ids_B = prefix.put(ids_B, step) if prefix else ids_B
            answer_B1A = torch.cat([answer_B1A, ids_B[:, None, None]], -1)
            closed_B += ids_B == self.eos
        return [
            None if unread else up_to(row, self.eos, eos_count)
            for row, unread in zip(answer_B1A[:, 0, start:].tolist(), bad_B.tolist(), strict=True)
        ]

    def _readings(self, batch: Batch, answer_BCA: Tensor, outputs: int) -> tuple[Reading, Reading]:
        """Return the readings of task inputs and of answers, with `outputs` last columns of each
        answer; one and the same if one is enough."""
        _, C, A = answer_BCA.shape
        own_B = batch.input_mask_BL.sum(1)
        before_B = batch.mask_BL.sum(1) - own_B
        columns = int(own_B.max())
        text_BL = _rationale_first(batch.ids_BL, before_B, own_B)
        first = given = None
        if self.bottleneck and text_BL.shape[1] > columns:
            task_input = Span(before_B, columns)
            first = read(self.model, self.depth, text_BL, task_input, Span(before_B, 1), None)
            mask_XI = batch.input_mask_BL[:, :columns].repeat_interleave(C, 0)
            kept = [states.repeat_interleave(C, -3) for states in first.entering]
            given = Given(kept, mask_XI)
            text_BL, before_B = batch.ids_BL[:, :columns], torch.zeros_like(before_B)
        before_X, own_X = (each.repeat_interleave(C) for each in (before_B, own_B))
        ids_XN = _behind(
            text_BL.repeat_interleave(C, 0), before_X + own_X, answer_BCA.flatten(0, 1)
        )
        answer = Span(before_X + own_X + A - outputs, outputs)
        second = read(self.model, self.depth, ids_XN, Span(before_X, columns), answer, given)
        return first or second, second


def _first(states: Tensor) -> Tensor:
    """Return states as (X, W, H): Gemma 3n carries several predictions of them, the first of which
    is its layers' result."""
    return states[0] if states.dim() == 4 else states


def _rationale_first(ids_BL: Tensor, rationale_B: Tensor, own_B: Tensor) -> Tensor:
    """Return `[R ; I]` of a batch's `[I ; R]`."""
    columns_L = torch.arange(ids_BL.shape[1], device=ids_BL.device)
    rationale_B1, own_B1 = rationale_B[:, None], own_B[:, None]
    turned_BL = torch.where(columns_L < rationale_B1, columns_L + own_B1, columns_L - rationale_B1)
    return ids_BL.gather(1, torch.where(columns_L < rationale_B1 + own_B1, turned_BL, columns_L))


def _behind(text_XL: Tensor, end_X: Tensor, answer_XA: Tensor) -> Tensor:
    """Return texts with an answer where each ends, then padding."""
    L, A = text_XL.shape[1], answer_XA.shape[1]
    columns_N = torch.arange(L + A, device=text_XL.device)
    past_XN = columns_N - end_X[:, None]
    padding_X1 = torch.zeros_like(text_XL[:, :1])
    both_XM = torch.cat([text_XL, answer_XA, padding_X1], 1)
    at_XN = torch.where(past_XN < 0, columns_N, (past_XN + L).clamp(max=L + A))
    return both_XM.gather(1, at_XN)
