"""Encoder-only backbone (BERT family) with an answer head over task-input states.

The encoder reads `[I]` or `[I ; R]` once. The choices are part of `I`: the head scores each from
the mean state of its own tokens and the mean state of the whole task input. The bottleneck: the
head reads states at positions of `I` only; without it, the mean includes `R` as well.
Shapes as in `base`.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModel

from knife.compat.transformers import save_model
from knife.core.errors import raise_errors
from knife.data.batches import Batch
from knife.models.base import Backbone, Output, masked_scores, task_input_states
from knife.models.files import ANSWER_HEAD
from knife.models.weights import finite_errors, head_errors, load_whole

# Parts of encoders that no score depends on: pooling and contact heads, entities, attention from
# chosen tokens to all, RoFormer's constant sines. They are frozen: a parameter without a gradient
# decays in some of DeepSpeed's stages, and moves by an earlier gradient in another.
_UNREAD = (
    ".pooler.",
    ".contact_head.",
    ".entity_embeddings.",
    "2e_query.",
    "e2w_query.",
    "_global.",
    ".embed_positions.",
)


class EncoderOnly(Backbone):
    """A backbone around any bidirectional encoder of transformers."""

    def __init__(self, folder: Path, *, bottleneck: bool = True) -> None:
        super().__init__(folder, bottleneck=bottleneck)
        self.encoder = load_whole(AutoModel, folder)
        freeze_unread(self.encoder)
        self._set_sizes(self.encoder.config)
        self._types: int = getattr(self.encoder.config, "type_vocab_size", 0)
        self.head = nn.Sequential(
            nn.Linear(3 * self.width, self.width),
            nn.GELU(),
        )
        self.score = nn.Linear(self.width, 1)
        raise_errors(head_errors(folder, self.width))
        if (folder / ANSWER_HEAD).is_file():
            state = load_file(folder / ANSWER_HEAD)
            raise_errors(finite_errors(folder / ANSWER_HEAD, state.items()))
            # Not strict: the encoder's own weights are in another file.
            self.load_state_dict(state, strict=False)

    def forward(self, batch: Batch, layers: Sequence[int] = ()) -> Output:
        """Score a choice from the states of its tokens and of the whole task input."""
        middle = any(layer != self.depth for layer in layers)
        types = {}
        if self._types > 1:
            types["token_type_ids"] = batch.mask_BL - batch.input_mask_BL
        encoded = self.encoder(
            input_ids=batch.ids_BL,
            attention_mask=batch.mask_BL,
            output_hidden_states=middle,
            **types,
        )
        states_BLH = encoded.last_hidden_state
        read_BL = batch.input_mask_BL if self.bottleneck else batch.mask_BL
        whole_BH = _mean(states_BLH, read_BL)
        choice_BCH = _mean(states_BLH, _span_mask(batch))
        whole_BCH = whole_BH.unsqueeze(1).expand_as(choice_BCH)
        answer_BCH = self.head(torch.cat([whole_BCH, choice_BCH, whole_BCH * choice_BCH], -1))
        states, input_mask_BI = task_input_states(
            encoded.hidden_states or (), states_BLH, batch, layers
        )
        return Output(
            scores_BC=masked_scores(self.score(answer_BCH).squeeze(-1).float(), batch),
            input_states=states,
            input_mask_BI=input_mask_BI,
            output_states_BCTH=answer_BCH.unsqueeze(2),
            output_mask_BCT=batch.choice_exists_BC.unsqueeze(-1).long(),
        )

    def save(self, folder: Path, state: dict[str, Tensor]) -> None:
        """Write the encoder as transformers does, and the answer head beside it."""
        prefix = "encoder."
        encoder = {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
        head = {n: t.contiguous() for n, t in state.items() if not n.startswith(prefix)}
        save_model(self.encoder, folder, encoder)
        save_file(head, folder / ANSWER_HEAD)


def freeze_unread(encoder: nn.Module) -> None:
    """Freeze the parts of an encoder that no score depends on."""
    for name, parameter in encoder.named_parameters():
        if any(part in f".{name}" for part in _UNREAD):
            parameter.requires_grad_(False)


def _span_mask(batch: Batch) -> Tensor:
    """Return a mask (B, C, L), 1 at the tokens of each choice in the task input."""
    columns_L = torch.arange(batch.ids_BL.shape[1], device=batch.ids_BL.device)
    start_BC1, end_BC1 = batch.choice_spans_BC2.unsqueeze(-1).unbind(2)
    return ((columns_L >= start_BC1) & (columns_L < end_BC1)).long()


def _mean(states_BLH: Tensor, mask_BxL: Tensor) -> Tensor:
    """Average the states where the mask, (B, L) or (B, C, L), is 1: (B, H) or (B, C, H)."""
    weight = mask_BxL.to(states_BLH.dtype)
    weight = weight / weight.sum(-1, keepdim=True).clamp(min=1)
    if weight.dim() == 2:
        return (weight.unsqueeze(1) @ states_BLH).squeeze(1)
    return weight @ states_BLH
