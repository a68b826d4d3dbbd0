"""The small interface that every model implements.

Shapes: B examples, L tokens, I task-input tokens, C choices, T tokens per choice, H width, V
vocabulary size.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from knife.compat.transformers import save_model
from knife.data.batches import Batch
from knife.models.generation import Prefix


@dataclass(frozen=True)
class Output:
    """The output of a backbone for a batch.

    Attributes:
        scores_BC: score of each choice; the most negative number if there is no such choice.
        input_states: hidden states at task-input positions, (B, I, H), by layer (from 1) of the
            part of the model that reads `I`.
        input_mask_BI: 1 at task-input tokens, 0 at padding and, if `[I ; R]` was read, at
            rationale tokens that share a column with another example's task input.
        output_states_BCTH: answer-side states of each choice.
        output_mask_BCT: 1 at positions that have answer-side states.
    """

    scores_BC: Tensor
    input_states: dict[int, Tensor]
    input_mask_BI: Tensor
    output_states_BCTH: Tensor
    output_mask_BCT: Tensor


class Backbone(nn.Module, ABC):
    """A model that scores choices, as teacher (`[I ; R]`) and as student (`[I]`).

    With the bottleneck, nothing on the answer side sees a rationale's states, so that the answer
    depends on the task-input states alone (Chan et al. 2022, arXiv 2212.09721, section 3).

    Attributes:
        depth: number of layers of the encoder, or of the decoder if there is no encoder.
        width: width of their states.
        output_width: width of the answer-side states.
        bottleneck: whether it has one.
        model: the transformers model.
    """

    model: Any
    bottleneck: bool
    depth: int
    width: int
    output_width: int

    @abstractmethod
    def __init__(self, folder: Path, *, bottleneck: bool = True) -> None:
        super().__init__()
        self.bottleneck = bottleneck

    def _set_sizes(self, config: Any) -> None:
        """Set depth and widths by a transformers config."""
        self.depth, self.width = config.num_hidden_layers, config.hidden_size
        self.output_width = self.width

    @abstractmethod
    def forward(self, batch: Batch, layers: Sequence[int] = ()) -> Output:
        """Score the choices of a batch, encoding the task input once; keep states of `layers`."""

    def generate(
        self,
        batch: Batch,
        max_tokens: int,
        eos_count: int = 1,
        *,
        prefix: Prefix | None = None,
        synced_gpus: bool = False,
    ) -> list[list[int] | None]:
        """Generate tokens greedily for each example, until it has `eos_count` closing tokens or
        `max_tokens` tokens, those of `prefix` first; None if the model's outputs were not
        finite."""
        raise NotImplementedError(f"{type(self).__name__} cannot generate; see `can_generate`")

    def save(self, folder: Path, state: dict[str, Tensor]) -> None:
        """Write a gathered state dict so that `AutoModel…` and `load_backbone` can load it."""
        own = {name.removeprefix("model."): tensor for name, tensor in state.items()}
        save_model(self.model, folder, own)


def task_input_states(
    hidden: Sequence[Tensor], last_BLH: Tensor, batch: Batch, layers: Sequence[int]
) -> tuple[dict[int, Tensor], Tensor]:
    """Return the states of `layers` in the columns of task-input tokens, and their mask."""
    columns = int(batch.input_mask_BL.sum(1).max())
    depth = len(hidden) - 1
    states = {}
    for layer in layers:
        states_BLH = last_BLH if layer == depth or not hidden else hidden[layer]
        states[layer] = states_BLH[:, :columns]
    return states, batch.input_mask_BL[:, :columns]


def masked_scores(scores_BC: Tensor, batch: Batch) -> Tensor:
    """Set scores to the most negative number where an example has no such choice."""
    return scores_BC.masked_fill(~batch.choice_exists_BC, torch.finfo(scores_BC.dtype).min)


def choice_scores(logits_BNV: Tensor, batch: Batch) -> Tensor:
    """Return the mean log-probability of each choice's tokens, including the closing one: (B, C).

    `logits_BNV` predict the tokens of all choices, N = C x T.
    """
    losses_BN = nn.functional.cross_entropy(
        logits_BNV.float().transpose(1, 2), batch.choice_ids_BCT.flatten(1), reduction="none"
    )
    mask_BCT = batch.choice_mask_BCT
    sums_BC = (losses_BN.view(mask_BCT.shape) * mask_BCT).sum(-1)
    return masked_scores(-sums_BC / mask_BCT.sum(-1).clamp(min=1), batch)
