"""Losses, gradients, weights and outputs that are not finite, and messages on their origin."""

import logging
import math
from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.distributed as dist

from knife.core.errors import NotFiniteError, TrainingDivergedError
from knife.train.context import all_reduce_sum, gather
from knife.train.finite import named

# A step that DeepSpeed skips ends the training, with an error of our own.
logging.getLogger("DeepSpeed").addFilter(lambda record: "Skipping step" not in record.getMessage())

_ADVICE = "Lower the learning rate, or look at these examples"
# At most this many ids of a batch are named: one of them may be the cause.
_BATCH = 64
# The square of a larger weight overflows: norms of hidden states become infinite and scale them to
# zeros, which give finite outputs that are all equal.
_LARGEST = 1e18
_LOSS, _GRADIENT, _WEIGHTS = "loss", "gradient", "weights"


class FirstBad:
    """Remembers the first step whose loss or gradient was not finite, without waiting for a
    device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._none = torch.full((), -1, device=device)
        # First bad step of each part of the loss, and of the gradient; -1 if there was none.
        self._losses: dict[str, torch.Tensor] = {}
        self._gradient = self._none

    def watch(self, engine: Any) -> None:
        """Keep DeepSpeed's gradient norms where it clips gradients itself and discards the norms.

        There a norm that overflows becomes a factor of 0, so that finite gradients would silently
        have no effect.
        """
        from knife.compat.deepspeed import keep_norms

        keep_norms(engine)

    def add(self, parts: dict[str, torch.Tensor], step: int) -> None:
        """Check the losses of this rank at a step: `loss` and its parts."""
        for name, loss in parts.items():
            self._losses[name] = _first(self._losses.get(name, self._none), loss, step)

    def add_gradient(self, engine: Any, step: int) -> None:
        """Check the gradient of a step. If its norm is not finite, DeepSpeed silently skips the
        step, in all ZeRO stages but 0."""
        norm = math.nan if engine.skipped_steps else engine.get_global_grad_norm()
        if norm is None:
            return
        norm = torch.as_tensor(norm, device=self._device)
        self._gradient = _first(self._gradient, norm, step)

    def found(self, engine: Any, means: dict[str, float]) -> str:
        """Return what is not finite, in words, or ""; the same on all ranks, which must call it.

        Args:
            engine: holds the weights.
            means: losses by name, as means over all ranks.
        """
        own = [own_part(weight, dist.get_rank()) for weight in engine.module.parameters()]
        # A comparison with NaN is always false.
        good = torch.stack([(w.abs().amax() < _LARGEST) for w in own if w.numel()]).all()
        flags = torch.stack([self._gradient >= 0, ~good.to(self._device)]).float()
        gradient, weights = (all_reduce_sum(flags) > 0).tolist()
        if not all(map(math.isfinite, means.values())):
            return _LOSS
        return _GRADIENT if gradient else _WEIGHTS if weights else ""

    def error(
        self, what: str, ids_since: Sequence[Sequence[str]], now: int, last_good: int | None
    ) -> TrainingDivergedError:
        """Return an error that describes the divergence; all ranks must call it.

        Args:
            what: the result of `found`.
            ids_since: ids of this rank's examples in each of the last steps, the newest last.
            now: steps done.
            last_good: step of the newest checkpoint.
        """
        losses = {name: int(step) for name, step in self._losses.items()}
        own = min((step for step in losses.values() if step >= 0), default=-1)
        if what == _GRADIENT:
            own = int(self._gradient)
        found = gather((own, list(ids_since), losses))
        step = min((at for at, *_ in found if at >= 0), default=now - 1)
        # The ranks that have seen it, or all: gradient and weights are shared by all ranks.
        seen = [since for at, since, _ in found if at == step] or [since for _, since, _ in found]
        ids = [name for since in seen for name in since[len(since) - (now - step)]]
        if what == _LOSS:
            first = {name for *_, of in found for name, at in of.items() if at == step}
            parts = sorted(first - {"loss"})
            # If no part is finite, none of them can be singled out as the cause.
            what += f" ({', '.join(parts)})" if 0 < len(parts) < len(losses) - 1 else ""
        said = f"the {what} is not finite at step {step + 1}"
        if what == _WEIGHTS:
            said = f"the weights are not finite, or beyond {_LARGEST:g}, after step {step + 1}"
        return TrainingDivergedError(
            f"{said}; examples of that batch: {named(ids, _BATCH)}; {_kept(last_good)}. {_ADVICE}"
        )


def own_part(weight: Any, rank: int) -> torch.Tensor:
    """Return the part of a weight that a rank keeps.

    At stage 3 all ranks keep parts of one size: behind the last weights there is padding, which
    DeepSpeed never initializes, so that it may hold anything.
    """
    if not hasattr(weight, "ds_tensor"):
        return cast(torch.Tensor, weight)
    part: torch.Tensor = weight.ds_tensor
    kept = int(weight.ds_numel) - rank * part.numel()
    return part.flatten()[: max(0, kept)]


def _first(before: torch.Tensor, value: torch.Tensor, step: int) -> torch.Tensor:
    """Return the first step with a non-finite value, given the one before and this step's value."""
    bad = ~value.isfinite().all() & (before < 0)
    return torch.where(bad, step, before)


def diverged_on_dev(error: NotFiniteError, step: int, last_good: int | None) -> NotFiniteError:
    """Return the error of an evaluation on dev as one of the training, after `step` steps."""
    return TrainingDivergedError(
        f"after step {step}, on dev, {error}; {_kept(last_good)}. {_ADVICE}"
    )


def _kept(last_good: int | None) -> str:
    return f"last good checkpoint: {f'the one of step {last_good}' if last_good else 'none yet'}"
