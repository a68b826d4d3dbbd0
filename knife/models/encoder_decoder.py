"""Encoder-decoder backbone (T5 family).

The encoder reads `[I]` or `[I ; R]`; the decoder scores all choices against that one encoding, as
one sequence of N = C x T tokens in which no choice sees another. Positions are relative in the T5
family, so each choice is scored as if it were alone. The bottleneck is the decoder's
cross-attention mask: it covers `I` only, so that the weights over `R` are exactly 0. Shapes as in
`base`.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForSeq2SeqLM
from transformers.modeling_outputs import BaseModelOutput

from knife.data.batches import Batch
from knife.models.base import Backbone, Output, choice_scores, task_input_states
from knife.models.generation import generate
from knife.models.weights import load_whole


class EncoderDecoder(Backbone):
    """A backbone around a model of the T5 family."""

    def __init__(self, folder: Path, *, bottleneck: bool = True) -> None:
        super().__init__(folder, bottleneck=bottleneck)
        self.model = load_whole(AutoModelForSeq2SeqLM, folder)
        self._set_sizes(self.model.config)

    def forward(self, batch: Batch, layers: Sequence[int] = ()) -> Output:
        """Score a choice by the mean log-probability of its tokens, including the closing one."""
        middle = any(layer != self.depth for layer in layers)
        encoded = self.model.get_encoder()(
            input_ids=batch.ids_BL, attention_mask=batch.mask_BL, output_hidden_states=middle
        )
        B, C, T = batch.choice_ids_BCT.shape
        start_BC1 = torch.full_like(
            batch.choice_ids_BCT[..., :1], self.model.config.decoder_start_token_id
        )
        decoded = self.model(
            encoder_outputs=BaseModelOutput(encoded.last_hidden_state),
            attention_mask=batch.input_mask_BL if self.bottleneck else batch.mask_BL,
            decoder_input_ids=torch.cat([start_BC1, batch.choice_ids_BCT[..., :-1]], -1).flatten(1),
            decoder_attention_mask=_choices_apart(C, T, encoded.last_hidden_state),
            use_cache=False,
            output_hidden_states=True,
        )
        states, input_mask_BI = task_input_states(
            encoded.hidden_states or (), encoded.last_hidden_state, batch, layers
        )
        return Output(
            scores_BC=choice_scores(decoded.logits, batch),
            input_states=states,
            input_mask_BI=input_mask_BI,
            output_states_BCTH=decoded.decoder_hidden_states[-1].view(B, C, T, -1),
            output_mask_BCT=batch.choice_mask_BCT,
        )

    def generate(
        self, batch: Batch, max_tokens: int, eos_count: int = 1, *, synced_gpus: bool = False
    ) -> list[list[int] | None]:
        """Generate tokens for each example, until it has `eos_count` closing tokens; None if the
        model's outputs were not finite."""
        with torch.no_grad():
            encoded = self.model.get_encoder()(input_ids=batch.ids_BL, attention_mask=batch.mask_BL)
        inputs = {
            "encoder_outputs": BaseModelOutput(encoded.last_hidden_state),
            "attention_mask": batch.input_mask_BL if self.bottleneck else batch.mask_BL,
        }
        return generate(
            self.model,
            inputs,
            start=1,
            eos=self.model.config.eos_token_id,
            eos_count=eos_count,
            max_tokens=max_tokens,
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
