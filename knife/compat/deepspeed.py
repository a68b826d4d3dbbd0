"""DeepSpeed, imported with the settings we need, and private parts of it, as of version 0.19.

Other modules import `deepspeed` from here, never before this module.
"""

import importlib
import logging
import os
import sys
import warnings
from typing import Any

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
os.environ.setdefault("DEEPSPEED_LOG_LEVEL", "warning")
warnings.filterwarnings("ignore", category=FutureWarning, module=r"(torch|deepspeed)\..*")

# DeepSpeed's autotuner, which is not used here, imports MLflow: seconds in every worker.
_hides_mlflow = "mlflow" not in sys.modules
if _hides_mlflow:
    sys.modules["mlflow"] = None  # type: ignore[assignment]

import deepspeed as deepspeed  # noqa: E402  (reads the environment set above)
import deepspeed.ops  # noqa: E402
from deepspeed.checkpoint import ds_to_universal as ds_to_universal  # noqa: E402
from deepspeed.runtime import bf16_optimizer  # noqa: E402
from deepspeed.runtime.checkpoint_engine import TorchCheckpointEngine  # noqa: E402
from deepspeed.runtime.fp16.loss_scaler import LossScaler  # noqa: E402
from deepspeed.runtime.fp16.unfused_optimizer import FP16_UnfusedOptimizer  # noqa: E402
from deepspeed.runtime.utils import clip_grad_norm_  # noqa: E402
from deepspeed.runtime.zero.config import ZeroStageEnum  # noqa: E402
from deepspeed.utils.tensor_fragment import fragment_address  # noqa: E402

from knife.compat.replaced import replaced  # noqa: E402

# Every ZeRO stage imports an optimizer that is not used here and whose functions are compiled by
# torch: its compiler would be imported, seconds in every worker.
with replaced(torch, "compile", lambda *_, **__: lambda function: function):
    importlib.import_module("deepspeed.runtime.zero.muon.muon_optimizer")

if _hides_mlflow:
    del sys.modules["mlflow"]

# DeepSpeed would fill this by trial compilations, whose errors are printed. It looks up a single
# operation here, which only serves inference and takes 45 s to build on every new machine.
deepspeed.ops.__compatible_ops__ = {}
logging.getLogger("DeepSpeed").setLevel(logging.WARNING)


def _silent(*_: Any, **__: Any) -> None:
    """Do nothing, in place of functions that print a line on every start and load."""


bf16_optimizer.see_memory_usage = _silent
bf16_optimizer.print = _silent

# Types in DeepSpeed's files other than tensors and plain values.
torch.serialization.add_safe_globals([ZeroStageEnum, LossScaler, fragment_address])


class SafeCheckpointEngine(TorchCheckpointEngine):  # type: ignore[misc]
    """Reads from DeepSpeed's files only weights and a few DeepSpeed types, and runs no code."""

    def load(self, path: str, map_location: Any = None) -> Any:
        """Load a file; anything in it but tensors, plain values and safe types is rejected."""
        return torch.load(path, map_location=map_location, weights_only=True)


def read_files_safely(engine: Any) -> None:
    """Make an engine load its checkpoints with `SafeCheckpointEngine`."""
    engine.checkpoint_engine = SafeCheckpointEngine(engine._config)


def undo_hidden_step(engine: Any, *, fp32_gradients: bool) -> None:
    """Make ZeRO 0 in bf16 train like the other stages.

    DeepSpeed's optimizer for it creates AdamW's state by a step with zero gradients, which decays
    the fp32 weights once and puts the bias correction one step ahead: that step is undone. It sums
    gradients in bf16; with `fp32_gradients`, torch sums them in fp32.
    """
    assert isinstance(engine.optimizer, FP16_UnfusedOptimizer)
    engine.optimizer.refresh_fp32_params()
    engine.optimizer.optimizer.state.clear()
    if fp32_gradients:
        for parameter in engine.optimizer.fp16_groups[0]:
            parameter.grad_dtype = torch.float32


def forget_moments(engine: Any) -> None:
    """Make AdamW begin anew, at every ZeRO stage: its moments and its steps become 0."""
    optimizer = getattr(engine.optimizer, "optimizer", engine.optimizer)
    for state in optimizer.state.values():
        for value in state.values():
            value.zero_()


def keep_norms(engine: Any) -> None:
    """Make `get_global_grad_norm` return the norm when DeepSpeed itself clips fp32 gradients and
    would discard it."""

    def clip() -> None:
        engine._global_grad_norm = clip_grad_norm_(
            engine.module.parameters(), engine.gradient_clipping(), mpu=engine.mpu
        )

    engine.clip_fp32_gradients = clip
