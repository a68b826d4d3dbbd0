"""DeepSpeed, imported as we need it, and what is not public in it, as seen in 0.19.

Other modules import `deepspeed` from here, never before this module.
"""

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

# DeepSpeed's autotuner, which nobody here uses, imports MLflow: seconds in every worker.
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

if _hides_mlflow:
    del sys.modules["mlflow"]

# What DeepSpeed would find by trial compilations, whose errors show. It looks here for one
# operation alone, which only serves inference and takes 45 s to build on every new machine.
deepspeed.ops.__compatible_ops__ = {}
logging.getLogger("DeepSpeed").setLevel(logging.WARNING)


def _silent(*_: Any, **__: Any) -> None:
    """In place of what prints a line of DeepSpeed's own about every start and load."""


bf16_optimizer.see_memory_usage = _silent
bf16_optimizer.print = _silent

# What DeepSpeed's files hold beside tensors and plain values.
torch.serialization.add_safe_globals([ZeroStageEnum, LossScaler, fragment_address])


class SafeCheckpointEngine(TorchCheckpointEngine):  # type: ignore[misc]
    """Reads DeepSpeed's files as weights and a few of DeepSpeed's own values, never as code."""

    def load(self, path: str, map_location: Any = None) -> Any:
        """Load a file; anything in it but tensors, plain and safe values is refused."""
        return torch.load(path, map_location=map_location, weights_only=True)


def read_files_safely(engine: Any) -> None:
    """Have an engine load its checkpoints by `SafeCheckpointEngine`."""
    engine.checkpoint_engine = SafeCheckpointEngine(engine._config)


def undo_hidden_step(engine: Any, *, fp32_gradients: bool) -> None:
    """Make ZeRO 0 in bf16 train as the other stages do.

    DeepSpeed's optimizer for it makes AdamW's state by a step with zero gradients, which decays
    the fp32 weights once and puts the bias correction one step ahead: that step is undone. It sums
    gradients in bf16; with `fp32_gradients`, torch sums them in fp32.
    """
    assert isinstance(engine.optimizer, FP16_UnfusedOptimizer)
    engine.optimizer.refresh_fp32_params()
    engine.optimizer.optimizer.state.clear()
    if fp32_gradients:
        for parameter in engine.optimizer.fp16_groups[0]:
            parameter.grad_dtype = torch.float32


def keep_norms(engine: Any) -> None:
    """Have `get_global_grad_norm` give the norm where DeepSpeed itself clips fp32 gradients: it
    throws that norm away."""

    def clip() -> None:
        engine._global_grad_norm = clip_grad_norm_(
            engine.module.parameters(), engine.gradient_clipping(), mpu=engine.mpu
        )

    engine.clip_fp32_gradients = clip
