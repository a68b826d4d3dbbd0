"""Encoder-decoder backbone (T5 family).

The encoder reads `[I]` or `[I ; R]`; the decoder scores all choices against that one encoding, as
one sequence of N = C x T tokens in which no choice sees another. Positions are relative in the T5
family, so each choice is scored as if it were alone; other families are in `choice_rows`. The
bottleneck is the decoder's cross-attention mask: it covers `I` only, so that the weights over `R`
are exactly 0. Shapes as in `base`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForSeq2SeqLM
from transformers.modeling_outputs import BaseModelOutput

from knife.data.batches import Batch
from knife.models.base import Backbone, Output, choice_scores, task_input_states
from knife.models.families import decoder_config, reader_config
from knife.models.generation import Prefix, generate
from knife.models.weights import load_whole


class EncoderDecoder(Backbone):
    """A backbone around a model of the T5 family."""

    def __init__(self, folder: Path, *, bottleneck: bool = True) -> None:
        super().__init__(folder, bottleneck=bottleneck)
        self.model = load_whole(AutoModelForSeq2SeqLM, folder)
        self._set_sizes(reader_config(self.model.config))
        self.output_width = decoder_config(self.model.config).hidden_size

    def forward(self, batch: Batch, layers: Sequence[int] = ()) -> Output:
        """Score a choice by the mean log-probability of its tokens, including the closing one."""
        middle = any(layer != self.depth for layer in layers)
        encoded = self.model.get_encoder()(
            input_ids=batch.ids_BL, attention_mask=batch.mask_BL, output_hidden_states=middle
        )
        logits_BNV, states_BCTH = self._decode(encoded, batch)
        states, input_mask_BI = task_input_states(
            encoded.hidden_states or (), encoded.last_hidden_state, batch, layers
        )
        return Output(
            scores_BC=choice_scores(logits_BNV, batch),
            input_states=states,
            input_mask_BI=input_mask_BI,
            output_states_BCTH=states_BCTH,
            output_mask_BCT=batch.choice_mask_BCT,
        )

    def _decode(self, encoded: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the logits for all tokens of all choices, (B, N, V), and the last states of the
        decoder that they come from, (B, C, T, H)."""
        B, C, T = batch.choice_ids_BCT.shape
        start_BC1 = torch.full_like(
            batch.choice_ids_BCT[..., :1], self.model.config.decoder_start_token_id
        )
        decoded = self.model(
            encoder_outputs=BaseModelOutput(encoded.last_hidden_state),
            attention_mask=self._seen(batch),
            decoder_input_ids=torch.cat([start_BC1, batch.choice_ids_BCT[..., :-1]], -1).flatten(1),
            decoder_attention_mask=_choices_apart(C, T, encoded.last_hidden_state),
            use_cache=False,
            output_hidden_states=True,
        )
        return decoded.logits, decoded.decoder_hidden_states[-1].view(B, C, T, -1)

    def _seen(self, batch: Batch) -> Tensor:
        """Return the mask of what the decoder sees of the encoder's states, (B, L)."""
        return batch.input_mask_BL if self.bottleneck else batch.mask_BL

    def _start(self) -> tuple[list[int], int]:
        """Return the tokens that the decoder starts from, and the one that ends a text."""
        config = self.model.config
        return [config.decoder_start_token_id], config.eos_token_id

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
        model's outputs were not finite."""
        with torch.no_grad():
            encoded = self.model.get_encoder()(input_ids=batch.ids_BL, attention_mask=batch.mask_BL)
        start, eos = self._start()
        first_BS = torch.tensor([start], device=batch.ids_BL.device).expand(len(batch.ids_BL), -1)
        return generate(
            self.model,
            {
                "encoder_outputs": type(encoded)(last_hidden_state=encoded.last_hidden_state),
                "attention_mask": self._seen(batch),
            },
            first_BS,
            eos=eos,
            eos_count=eos_count,
            max_tokens=max_tokens,
            prefix=prefix,
            synced_gpus=synced_gpus,
        )


def _choices_apart(choices: int, tokens: int, like: Tensor) -> Tensor:
    """Return an additive self-attention mask (1, 1, N, N): a token sees itself and earlier tokens
    of its own choice."""
    place_N = torch.arange(choices * tokens, device=like.device)
    own_NN = place_N[:, None] // tokens == place_N // tokens
    seen_NN = own_NN & (place_N[:, None] >= place_N)
    unseen = torch.finfo(like.dtype).min
    return torch.zeros_like(seen_NN, dtype=like.dtype).masked_fill(~seen_NN, unseen)[None, None]
