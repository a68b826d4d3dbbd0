"""The DeepSpeed engine: configuration, learning-rate schedule and gathered weights."""

import logging
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from knife.config.run import Scale, Training
from knife.plan.memory import BUCKET

if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
os.environ.setdefault("DEEPSPEED_LOG_LEVEL", "warning")
warnings.filterwarnings("ignore", category=FutureWarning, module=r"(torch|deepspeed)\..*")

# DeepSpeed's autotuner, which nobody here uses, imports MLflow: seconds in every worker.
_hides_mlflow = "mlflow" not in sys.modules
if _hides_mlflow:
    sys.modules["mlflow"] = None  # type: ignore[assignment]

import deepspeed  # noqa: E402  (reads the environment set above)
import deepspeed.ops  # noqa: E402
from deepspeed.runtime import bf16_optimizer  # noqa: E402
from deepspeed.runtime.checkpoint_engine import TorchCheckpointEngine  # noqa: E402
from deepspeed.runtime.fp16.loss_scaler import LossScaler  # noqa: E402
from deepspeed.runtime.fp16.unfused_optimizer import FP16_UnfusedOptimizer  # noqa: E402
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

# What stands in DeepSpeed's files beside tensors and plain values.
torch.serialization.add_safe_globals([ZeroStageEnum, LossScaler, fragment_address])


class SafeCheckpointEngine(TorchCheckpointEngine):  # type: ignore[misc]
    """Reads DeepSpeed's files as weights and a few of DeepSpeed's own values, never as code."""

    def load(self, path: str, map_location: Any = None) -> Any:
        """Load a file; anything in it but tensors, plain and safe values is refused."""
        return torch.load(path, map_location=map_location, weights_only=True)


def schedule(warmup_steps: int, total_steps: int) -> Callable[[int], float]:
    """Share of the learning rate by step: linear warm-up from 0, then linear decay to 0."""

    def share(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        return max(0.0, (total_steps - step) / max(1, total_steps - warmup_steps))

    return share


def engine_config(training: Training, scale: Scale, workers: int) -> dict[str, Any]:
    """The DeepSpeed configuration of a training.

    Gradients of several parts of a batch are added up in fp32. Where there is one part nothing is
    added, and bf16 weights have bf16 gradients: the same numbers in half of the memory.
    """
    # Stage 0 knows no other type than the weights' own: `_start_unsharded_bf16` sees to it.
    wide = training.accumulate > 1 and scale.zero_stage > 0
    return {
        # Where the batch does not divide, some workers have one example more.
        "train_micro_batch_size_per_gpu": max(
            1, training.batch_size // (workers * training.accumulate)
        ),
        "gradient_accumulation_steps": training.accumulate,
        "gradient_clipping": training.clip,
        # Each part is added up at once: stage 1 would otherwise add it again with the next one.
        "bf16": {"enabled": scale.precision == "bf16", "immediate_grad_update": True},
        "data_types": {"grad_accum_dtype": "fp32" if wide else None},
        "zero_optimization": {"stage": scale.zero_stage},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 2**62,
    }


def start_engine(
    objective: nn.Module,
    training: Training,
    scale: Scale,
    workers: int,
    total_steps: int,
    *,
    universal: bool = False,
) -> Any:
    """Wrap a module that was built plainly (never under `zero.Init`) into a DeepSpeed engine.

    `universal` makes it an engine that can load DeepSpeed's universal checkpoints, and them alone.
    """
    parameters = [p for p in objective.parameters() if p.requires_grad]
    # Torch's AdamW: DeepSpeed's own compile for a minute before the first step.
    optimizer = torch.optim.AdamW(
        parameters, lr=training.learning_rate, weight_decay=training.weight_decay
    )
    warmup_steps = round(training.warmup * total_steps)
    config = engine_config(training, scale, workers)
    # DeepSpeed's own bucket has 500 M elements, GBs that a small model never uses.
    elements = min(BUCKET, sum(p.numel() for p in parameters))
    config["zero_optimization"]["reduce_bucket_size"] = elements
    engine, *_ = deepspeed.initialize(
        model=objective,
        optimizer=optimizer,
        lr_scheduler=LambdaLR(optimizer, schedule(warmup_steps, total_steps)),
        config=config | {"checkpoint": {"load_universal": universal}},
        dist_init_required=False,
    )
    engine.checkpoint_engine = SafeCheckpointEngine(engine._config)
    if scale.zero_stage == 0 and scale.precision == "bf16":
        _start_unsharded_bf16(engine, fp32_gradients=training.accumulate > 1)
    if workers == 1 and scale.zero_stage == 0:
        # The sum over one worker: DeepSpeed would copy all gradients there and back for it.
        engine.enable_backward_allreduce = False
    return engine


def _start_unsharded_bf16(engine: Any, *, fp32_gradients: bool) -> None:
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


def gathered_state(module: nn.Module) -> dict[str, Tensor]:
    """A module's weights, whole and on the CPU, tied ones once; all ranks call it together."""
    state = {}
    for name, parameter in module.named_parameters():
        sharded = [parameter] if hasattr(parameter, "ds_id") else []
        with deepspeed.zero.GatheredParameters(sharded, enabled=bool(sharded)):
            state[name] = parameter.detach().cpu().clone()
    return state
