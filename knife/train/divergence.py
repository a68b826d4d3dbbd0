"""Losses, gradients, weights and outputs that are not finite: where they came from, in words."""

import logging
import math
from collections.abc import Sequence
from typing import Any

import torch

from knife.core.errors import NotFiniteError, TrainingDivergedError
from knife.train.context import all_reduce_sum, gather
from knife.train.finite import named

# A step that DeepSpeed leaves out ends the training, which we say ourselves.
logging.getLogger("DeepSpeed").addFilter(lambda record: "Skipping step" not in record.getMessage())

_ADVICE = "Lower the learning rate, or look at these examples"
# So many ids of a batch are named at most: one of them may be the cause.
_BATCH = 64
# The square of a larger weight overflows: norms of states are infinite then, and make zeros of
# them, from which come finite outputs that are all equal.
_LARGEST = 1e18
_LOSS, _GRADIENT, _WEIGHTS = "loss", "gradient", "weights"


class FirstBad:
    """Remembers the first step whose loss or gradient was not finite, without waiting for a
    device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._none = torch.full((), -1, device=device)
        # First step by part of the loss, and of the gradient; -1 where there was none.
        self._losses: dict[str, torch.Tensor] = {}
        self._gradient = self._none

    def watch(self, engine: Any) -> None:
        """Have DeepSpeed's norms of gradients where it clips them itself: it throws them away.

        A norm that overflows is a factor of 0 there, so that nothing would be learned of finite
        gradients, without a word.
        """
        from knife.compat.deepspeed import keep_norms

        keep_norms(engine)

    def add(self, parts: dict[str, torch.Tensor], step: int) -> None:
        """Take in the losses of this rank: `loss` and its parts."""
        for name, loss in parts.items():
            self._losses[name] = _first(self._losses.get(name, self._none), loss, step)

    def add_gradient(self, engine: Any, step: int) -> None:
        """Take in the gradient of a step that was made, or that DeepSpeed has skipped: with a norm
        that is not finite it does so in all stages but 0, without a word."""
        norm = math.nan if engine.skipped_steps else engine.get_global_grad_norm()
        if norm is None:
            return
        norm = torch.as_tensor(norm, device=self._device)
        self._gradient = _first(self._gradient, norm, step)

    def found(self, engine: Any, means: dict[str, float]) -> str:
        """What is not finite, in words, or nothing; the same on all ranks, which call it together.

        Args:
            engine: holds the weights.
            means: losses by name, as means over all ranks.
        """
        own = [getattr(weight, "ds_tensor", weight) for weight in engine.module.parameters()]
        # A comparison with NaN is never true.
        good = torch.stack([(w.abs().amax() < _LARGEST) for w in own if w.numel()]).all()
        flags = torch.stack([self._gradient >= 0, ~good.to(self._device)]).float()
        gradient, weights = (all_reduce_sum(flags) > 0).tolist()
        if not all(map(math.isfinite, means.values())):
            return _LOSS
        return _GRADIENT if gradient else _WEIGHTS if weights else ""

    def error(
        self, what: str, ids_since: Sequence[Sequence[str]], now: int, last_good: int | None
    ) -> TrainingDivergedError:
        """Say what happened; all ranks call it together.

        Args:
            what: what `found` has found.
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
        # The ranks that have seen it, or all: a gradient and weights are everybody's.
        seen = [since for at, since, _ in found if at == step] or [since for _, since, _ in found]
        ids = [name for since in seen for name in since[len(since) - (now - step)]]
        if what == _LOSS:
            first = {name for *_, of in found for name, at in of.items() if at == step}
            parts = sorted(first - {"loss"})
            # Where all parts are at fault, none of them is the cause.
            what += f" ({', '.join(parts)})" if 0 < len(parts) < len(losses) - 1 else ""
        said = f"the {what} is no finite number at step {step + 1}"
        if what == _WEIGHTS:
            said = f"the weights are not finite, or beyond {_LARGEST:g}, after step {step + 1}"
        return TrainingDivergedError(
            f"{said}; examples of that batch: {named(ids, _BATCH)}; {_kept(last_good)}. {_ADVICE}"
        )


def _first(before: torch.Tensor, value: torch.Tensor, step: int) -> torch.Tensor:
    """The first step with a value that is not finite, once this one's is known."""
    bad = ~value.isfinite().all() & (before < 0)
    return torch.where(bad, step, before)


def diverged_on_dev(error: NotFiniteError, step: int, last_good: int | None) -> NotFiniteError:
    """The same error as one of the training whose model was asked after `step` steps."""
    return TrainingDivergedError(
        f"after step {step}, on dev, {error}; {_kept(last_good)}. {_ADVICE}"
    )


def _kept(last_good: int | None) -> str:
    return f"last good checkpoint: {f'the one of step {last_good}' if last_good else 'none yet'}"
