"""One reading of plain texts by a causal language model, with the states that enter its layers.

Shapes: X rows, N columns, W columns of a span, H width, V vocabulary size. A state may have more
dimensions in front.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from knife.models.head import before_head


@dataclass(frozen=True)
class Span:
    """`width` columns of each row, from another column on in each; columns beyond the last are the
    last."""

    start_X: Tensor
    width: int

    def of(self, states: Tensor) -> Tensor:
        """Return these columns of states, (…, X, N, H): (…, X, W, H)."""
        columns_W = torch.arange(self.width, device=states.device)
        at_XW = (self.start_X[:, None] + columns_W).clamp(max=states.shape[-2] - 1)
        at = at_XW[..., None].expand(*states.shape[:-2], self.width, states.shape[-1])
        return states.gather(-2, at)


@dataclass(frozen=True)
class Given:
    """States that enter each layer in place of its own, (…, X, W, H), in the first W columns.

    Attributes:
        states: for each layer.
        mask_XW: 1 where they do.
    """

    states: Sequence[Tensor]
    mask_XW: Tensor


@dataclass(frozen=True)
class Reading:
    """What is kept of a reading.

    Attributes:
        entering: what enters each layer in the columns of the task input, (…, X, W, H); empty if it
            was given.
        last_XWH: the states that the last layer returns there, normalised.
        outputs_XWH: those in the columns of the answer.
        logits_XWV: the model's logits there.
    """

    entering: list[Tensor]
    last_XWH: Tensor
    outputs_XWH: Tensor
    logits_XWV: Tensor


def read(
    model: Any, depth: int, ids_XN: Tensor, task_input: Span, answer: Span, given: Given | None
) -> Reading:
    """Read texts that are padded on the right, without a mask: no token sees what follows it."""
    entering: list[Tensor] = []
    last: list[Tensor] = []
    waiting = iter(given.states if given else ())

    def enter(_module: nn.Module, args: Any, named: Any) -> Any:
        states = args[0] if args else named["hidden_states"]
        if given is None:
            entering.append(task_input.of(states))
        else:
            own, rest = states.tensor_split([given.mask_XW.shape[1]], -2)
            put = torch.where(given.mask_XW[..., None].bool(), next(waiting), own)
            states = torch.cat([put, rest], -2)
        if args:
            return (states, *args[1:]), named
        return args, named | {"hidden_states": states}

    handles = [
        layer.register_forward_pre_hook(enter, with_kwargs=True) for layer in layers(model, depth)
    ]
    try:
        with before_head(model, answer.of, last):
            logits_XWV = model(input_ids=ids_XN, use_cache=False).logits
    finally:
        for handle in handles:
            handle.remove()
    (last_XNH,) = last
    return Reading(entering, task_input.of(last_XNH), answer.of(last_XNH), logits_XWV)


def layers(model: nn.Module, depth: int) -> nn.ModuleList:
    """Return the layers of a model."""
    found = (m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == depth)
    return next(found)
