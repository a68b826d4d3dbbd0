"""Encoder-decoder backbone whose decoder reads each choice as a row of its own (BART and others).

The encoder reads `[I]` or `[I ; R]` once, and its states are repeated for every choice. So the
decoder reads each choice as transformers would, at any positions and with any attention of its own.
The bottleneck is that of `encoder_decoder`: cross-attention covers `I` only. Shapes as in `base`;
N = C x T, S tokens that the decoder starts from.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from knife.data.batches import Batch
from knife.data.tokens import answer_opening
from knife.models.encoder_decoder import EncoderDecoder
from knife.models.families import decoder_config
from knife.models.tokenizer import can_generate, load_tokenizer
from knife.models.weights import fixed_tables

# Parts that no score depends on: what reads images, and attention from chosen tokens to all. They
# are frozen, as in `encoder_only`.
_UNREAD = ("vision_tower.", "multi_modal_projector.", "eoi_embedding", "_global.")


class ChoiceRows(EncoderDecoder):
    """A backbone around an encoder-decoder of any kind of positions."""

    def __init__(self, folder: Path, *, bottleneck: bool = True) -> None:
        super().__init__(folder, bottleneck=bottleneck)
        freeze_unread(self.model)
        tokenizer = load_tokenizer(folder, "model")
        self._eos: int = tokenizer.eos_token_id
        self._opening = answer_opening(tokenizer)

    def _decode(self, encoded: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the logits for all tokens of all choices, (B, N, V), and the last states of the
        decoder that they come from, (B, C, T, H)."""
        B, C, T = batch.choice_ids_BCT.shape
        states_RLH = encoded.last_hidden_state.repeat_interleave(C, 0)
        decoded = self.model(
            encoder_outputs=type(encoded)(last_hidden_state=states_RLH),
            attention_mask=self._seen(batch).repeat_interleave(C, 0),
            decoder_input_ids=self._decoder_ids(batch),
            use_cache=False,
            output_hidden_states=True,
        )
        first = len(self._opening)
        logits_RTV = decoded.logits[:, first:]
        states_RTH = decoded.decoder_hidden_states[-1][:, first:]
        return logits_RTV.reshape(B, C * T, -1), states_RTH.reshape(B, C, T, -1)

    def _decoder_ids(self, batch: Batch) -> Tensor:
        """Return what the decoder reads for every choice, shifted as the model itself does it."""
        # The mask has only tokens that are scored, which are the last ones of a choice.
        token_BCT = batch.choice_mask_BCT.flip(-1).cummax(-1).values.flip(-1).bool()
        # A choice that does not exist must not be empty: mBART starts from its last token.
        used_BCT = torch.where(batch.choice_exists_BC[..., None], token_BCT, True)
        padding = decoder_config(self.model.config).pad_token_id
        ids_RT = batch.choice_ids_BCT.masked_fill(~token_BCT, self._eos)
        ids_RT = ids_RT.masked_fill(~used_BCT, padding).flatten(0, 1)
        opening_RS = ids_RT.new_tensor(self._opening).expand(len(ids_RT), -1)
        shifted: Tensor = self.model.prepare_decoder_input_ids_from_labels(
            torch.cat([opening_RS, ids_RT], 1)
        )
        return shifted

    def _start(self) -> tuple[list[int], int]:
        if not can_generate(self.model.config):
            raise NotImplementedError("mBART does not end a text with the token that others end it")
        start = self.model.prepare_decoder_input_ids_from_labels(torch.tensor([[self._eos]]))
        return [int(start[0, 0]), *self._opening], self._eos


def freeze_unread(model: nn.Module) -> None:
    """Freeze the parts of a model that no score depends on, and its fixed tables."""
    fixed = fixed_tables(model)
    for name, parameter in model.named_parameters():
        if name in fixed or any(part in name for part in _UNREAD):
            parameter.requires_grad_(False)
