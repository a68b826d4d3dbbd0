"""Decoder-only backbone (GPT-2, Llama and Qwen families).

The model reads `[R ; I ; O]`: the rationale, the task input, and the answer `O`, which is the text
` answer:` and a choice. All choices are in one sequence, at the same positions, and none sees
another, so that the task input is read once for all of them. In layers with a window, a token sees
as far back as the window allows.

`I` and `O` have positions 0, 1, … with and without a rationale; `R` ends at position -1.
Rotary positions are relative (Su et al. 2021, arXiv 2104.09864): to such a model this is a text
that begins with the rationale. In a table of positions, as in GPT-2, -1 is the last row, counting
from the end.

The bottleneck: `O` sees `I` and itself, so that the weights over `R` are exactly 0; without it, `O`
sees `R` as well. Attention depends only on the mask and the positions, so the columns can be in the
order `[I ; R ; O]` of a batch. Shapes as in `base`; S tokens of ` answer:`, N columns.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import create_block_mask
from transformers import AutoModelForCausalLM, DynamicCache

from knife.compat.transformers import attention_of
from knife.data.batches import Batch
from knife.data.tokens import answer_start
from knife.models.base import Backbone, Output, choice_scores, task_input_states
from knife.models.families import TABLE
from knife.models.generation import Prefix, finite, up_to
from knife.models.head import before_head
from knife.models.tokenizer import load_tokenizer
from knife.models.weights import load_whole


class DecoderOnly(Backbone):
    """A backbone around a causal language model."""

    def __init__(self, folder: Path, *, bottleneck: bool = True) -> None:
        super().__init__(folder, bottleneck=bottleneck)
        self.model = load_whole(AutoModelForCausalLM, folder)
        config = self.model.config
        self._set_sizes(config)
        types = getattr(config, "layer_types", None) or []
        self._window: int | None = getattr(config, "sliding_window", None) or None
        # In some families the window is that of layers of one type, in others that of all.
        self._by_type = "sliding_attention" in types
        if types and not self._by_type:
            self._window = None
        self._rows: int | None = (
            config.max_position_embeddings if config.model_type in TABLE else None
        )
        tokenizer = load_tokenizer(folder, "model")
        self._start = answer_start(tokenizer)
        self.eos: int = tokenizer.eos_token_id

    def forward(self, batch: Batch, layers: Sequence[int] = ()) -> Output:
        """Score a choice by the mean log-probability of its tokens, including the closing one."""
        B, C, T = batch.choice_ids_BCT.shape
        ids_BN, places_BN, seen_BNN = self._layout(batch)
        middle = any(layer != self.depth for layer in layers)
        last: list[Tensor] = []
        with before_head(self.model, lambda states_BNH: states_BNH[:, -C * T :], last):
            decoded = self.model(
                input_ids=ids_BN,
                attention_mask=self._masks(seen_BNN, places_BN, places_BN),
                position_ids=self._positions(places_BN),
                use_cache=False,
                output_hidden_states=middle,
            )
        (last_BNH,) = last
        answer_BNH = last_BNH[:, -C * T :]
        states, input_mask_BI = task_input_states(
            decoded.hidden_states or (), last_BNH, batch, layers
        )
        return Output(
            scores_BC=choice_scores(decoded.logits, batch),
            input_states=states,
            input_mask_BI=input_mask_BI,
            output_states_BCTH=answer_BNH.view(B, C, T, -1),
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

        Implemented here because generation in transformers supports neither negative positions
        nor a mask that hides the rationale from generated tokens.
        """
        B = len(batch.row_B)
        nothing_B11 = batch.ids_BL.new_zeros(B, 1, 1)
        asked = replace(batch, choice_ids_BCT=nothing_B11, choice_mask_BCT=nothing_B11)
        ids_BN, places_BN, seen_BNN = self._layout(asked)
        cache, place_B1, seen_BN = DynamicCache(), places_BN[:, -1:], seen_BNN[:, -1]
        read_BN = places_BN
        written: list[Tensor] = []
        closed_B = torch.zeros_like(batch.row_B)
        bad_B = torch.zeros_like(closed_B, dtype=torch.bool)
        # Workers with sharded weights must all make the same number of forward passes.
        while len(written) < max_tokens and (synced_gpus or bool((closed_B < eos_count).any())):
            with before_head(self.model, lambda states_BNH: states_BNH[:, -1:]):
                logits_BNV = self.model(
                    input_ids=ids_BN,
                    attention_mask=self._masks(seen_BNN, places_BN, read_BN),
                    position_ids=self._positions(places_BN),
                    past_key_values=cache,
                    use_cache=True,
                ).logits
            bad_B |= (closed_B < eos_count) & ~finite(logits_BNV[:, 0])
            ids_BN = logits_BNV.argmax(-1)
            if prefix:
                ids_BN = prefix.put(ids_BN[:, 0], len(written))[:, None]
            written.append(ids_BN)
            closed_B += ids_BN[:, 0] == self.eos
            place_B1 = place_B1 + 1
            read_BN = torch.cat([read_BN, place_B1], 1)
            seen_BN = nn.functional.pad(seen_BN, (0, 1), value=True)
            places_BN, seen_BNN = place_B1, seen_BN[:, None]
        return [
            None if unread else up_to(row, self.eos, eos_count)
            for row, unread in zip(torch.cat(written, 1).tolist(), bad_B.tolist(), strict=True)
        ]

    def _masks(self, seen_BQN: Tensor, asked_BQ: Tensor, read_BN: Tensor) -> Any:
        """Return the mask, or those of each type of layers, of columns at given positions that read
        others; a mask of ours replaces the model's window, so it has to be in there."""
        if self._window is None:
            return self._mask(seen_BQN)
        near_BQN = asked_BQ[:, :, None] - read_BN[:, None] < self._window
        windowed = self._mask(seen_BQN & near_BQN)
        if not self._by_type:
            return windowed
        return {"full_attention": self._mask(seen_BQN), "sliding_attention": windowed}

    def _mask(self, seen_BQN: Tensor) -> Any:
        """Convert the mask to the form that the model's attention implementation expects."""
        implementation = attention_of(self.model.config)
        if "flash" in implementation:
            raise ValueError("FlashAttention does not support our mask")
        if implementation == "flex_attention":
            B, Q, N = seen_BQN.shape
            return create_block_mask(
                lambda b, _head, query, key: seen_BQN[b, query, key],
                B, None, Q, N, seen_BQN.device.type,
            )  # fmt: skip
        mask_BQN = torch.zeros_like(seen_BQN, dtype=self.model.dtype)
        return mask_BQN.masked_fill(~seen_BQN, torch.finfo(mask_BQN.dtype).min)[:, None]

    def _positions(self, places_BN: Tensor) -> Tensor:
        """Return position ids; negative ones count from the end of a table of positions."""
        if self._rows is None:
            return places_BN
        return torch.where(places_BN < 0, places_BN + self._rows, places_BN)

    def _layout(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return ids and positions of all columns, (B, N), and the attention mask, (B, N, N).

        The columns: a batch's `[I ; R]`, the start of the answer except its last token, and for
        each choice that token and the choice except its own last token: each of these columns
        predicts the next token.
        """
        B, C, T = batch.choice_ids_BCT.shape
        device = batch.ids_BL.device
        start_S = torch.tensor(self._start, device=device)
        S, L = len(start_S), batch.ids_BL.shape[1]
        first_BC1 = start_S[-1].expand(B, C, 1)
        choices_BCT = torch.cat([first_BC1, batch.choice_ids_BCT[..., :-1]], -1)
        ids_BN = torch.cat([batch.ids_BL, start_S[:-1].expand(B, S - 1), choices_BCT.flatten(1)], 1)

        columns_L = torch.arange(L, device=device)
        own_B1, whole_B1 = batch.input_mask_BL.sum(1, True), batch.mask_BL.sum(1, True)
        read_BL = torch.where(batch.input_mask_BL.bool(), columns_L, columns_L - whole_B1)
        answer_N = torch.cat(
            [
                torch.arange(S - 1, device=device),
                torch.arange(S - 1, S - 1 + T, device=device).repeat(C),
            ]
        )
        places_BN = torch.cat([read_BL * batch.mask_BL, own_B1 + answer_N], 1)

        # Which choice a column belongs to; -1 is shared by all choices.
        common_N = torch.full((L + S - 1,), -1, device=device)
        choice_N = torch.cat([common_N, torch.arange(C, device=device).repeat_interleave(T)])
        apart_NN = (choice_N != -1) & (choice_N != choice_N[:, None])
        is_answer_N = torch.arange(len(choice_N), device=device) >= L
        token_BN = nn.functional.pad(batch.mask_BL, (0, S - 1 + C * T), value=1).bool()
        seen_BNN = (places_BN[:, None] <= places_BN[:, :, None]) & token_BN[:, None] & ~apart_NN
        if self.bottleneck:
            rationale_BL = batch.mask_BL - batch.input_mask_BL
            rationale_BN = nn.functional.pad(rationale_BL, (0, S - 1 + C * T)).bool()
            seen_BNN &= ~(is_answer_N[:, None] & rationale_BN[:, None])
        # Padding sees itself: attention over nothing would be NaN.
        return ids_BN, places_BN, seen_BNN | torch.eye(len(choice_N), device=device).bool()
