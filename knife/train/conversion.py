"""Checkpoints for a different number of workers, in DeepSpeed's universal format.

DeepSpeed's own files hold one shard per rank and fit no other number of ranks. Its universal
format holds each parameter unsharded with its optimizer state; an engine of any size loads its
part.
"""

import contextlib
import io
import shutil
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

from knife.core.environment import variables
from knife.core.words import counted


@dataclass(frozen=True)
class CheckpointLayout:
    """What a checkpoint's files depend on: number of workers, ZeRO stage and precision."""

    workers: int
    zero_stage: int
    precision: str

    def __str__(self) -> str:
        return f"{counted(self.workers, 'worker')}, ZeRO {self.zero_stage}, {self.precision}"

    @property
    def sharded(self) -> bool:
        """Whether each rank has only its part of the optimizer's state."""
        return self.zero_stage > 0


def fit(written: CheckpointLayout, shape: CheckpointLayout) -> bool:
    """Whether files written in one layout can be loaded in the other without conversion."""
    same = (written.zero_stage, written.precision) == (shape.zero_stage, shape.precision)
    return same and (written.workers == shape.workers or not written.sharded)


def convert(
    folder: Path, target: Path, written: CheckpointLayout, shape: CheckpointLayout
) -> Path | None:
    """Write a checkpoint to `target` in the universal format, and return that; None if DeepSpeed
    cannot convert between the layouts."""
    if written.precision != shape.precision or not (written.sharded and shape.sharded):
        return None
    # Imported here: planning imports this module but does not need DeepSpeed.
    from knife.compat.deepspeed import ds_to_universal

    shutil.rmtree(target.parent, ignore_errors=True)
    target.parent.mkdir(parents=True)
    settings = Namespace(
        input_folder=str(folder),
        output_folder=str(target),
        num_extract_workers=1,
        num_merge_workers=1,
        keep_temp_folder=False,
        strict=True,
        inject_missing_state=True,
    )
    # It prints every step.
    output = io.StringIO()
    with weights_only(), contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        ds_to_universal.main(settings)
    return target


def weights_only() -> contextlib.AbstractContextManager[None]:
    """Make `torch.load` read weights only, even if its caller disables that.

    DeepSpeed reads its universal files with `weights_only=False`.
    """
    return variables({"TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1"})
