"""A loss that is no number: where it came from, in words."""

from collections.abc import Sequence

import torch

from knife.errors import TrainingDivergedError
from knife.train.context import gather

_NAMED = 64


class FirstBad:
    """Remembers the first step whose loss was no finite number, without waiting for a device."""

    def __init__(self, device: torch.device) -> None:
        self._step = torch.full((), -1, device=device)

    def add(self, loss: torch.Tensor, step: int) -> None:
        """Take in a loss of this rank."""
        bad = ~torch.isfinite(loss) & (self._step < 0)
        self._step = torch.where(bad, step, self._step)

    def error(
        self, ids_since: Sequence[Sequence[str]], now: int, last_good: int | None
    ) -> TrainingDivergedError:
        """Say what happened; all ranks call it together.

        Args:
            ids_since: ids of this rank's examples in each of the last steps, the newest last.
            now: steps done.
            last_good: step of the newest checkpoint.
        """
        found = gather((int(self._step), ids_since))
        step = min((own for own, _ in found if own >= 0), default=now - 1)
        ids = [
            name for own, since in found if own == step for name in since[len(since) - (now - step)]
        ]
        more = f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else ""
        kept = f"the one of step {last_good}" if last_good else "none yet"
        return TrainingDivergedError(
            f"the loss is no finite number at step {step + 1}; examples of that batch: "
            f"{', '.join(dict.fromkeys(ids[:_NAMED]))}{more}; last good checkpoint: {kept}. Lower "
            "the learning rate, or look at these examples"
        )
