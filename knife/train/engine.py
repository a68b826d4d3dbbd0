"""The DeepSpeed engine: configuration, learning-rate schedule and gathered weights."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from knife.compat.deepspeed import deepspeed, read_files_safely, undo_hidden_step
from knife.config.run import Training
from knife.config.scale import Scale
from knife.models.weights import saved_buffers
from knife.plan.memory import BUCKET


def schedule(warmup_steps: int, total_steps: int) -> Callable[[int], float]:
    """Return the learning rate's factor by step: linear warm-up from 0, then linear decay to 0."""

    def share(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        return max(0.0, (total_steps - step) / max(1, total_steps - warmup_steps))

    return share


def engine_config(training: Training, scale: Scale, workers: int) -> dict[str, Any]:
    """Return the DeepSpeed configuration of a training.

    Gradients of several parts of a batch are accumulated in fp32. With one part there is nothing
    to accumulate, and bf16 weights have bf16 gradients: the same numbers in half the memory.
    """
    # Stage 0 supports only the weights' own type; `undo_hidden_step` takes care of it there.
    fp32_sums = training.accumulate > 1 and scale.zero_stage > 0
    return {
        # If the batch does not divide evenly, some workers have one example more.
        "train_micro_batch_size_per_gpu": max(
            1, training.batch_size // (workers * training.accumulate)
        ),
        "gradient_accumulation_steps": training.accumulate,
        "gradient_clipping": training.clip,
        # Each part is accumulated at once: stage 1 would otherwise add it again with the next one.
        "bf16": {"enabled": scale.precision == "bf16", "immediate_grad_update": True},
        "data_types": {"grad_accum_dtype": "fp32" if fp32_sums else None},
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
    """Wrap a module that was built normally (never under `zero.Init`) into a DeepSpeed engine.

    With `universal`, the engine can load DeepSpeed's universal checkpoints, and only those.
    """
    parameters = [p for p in objective.parameters() if p.requires_grad]
    # Torch's AdamW, which reads and writes everything once a step if fused: DeepSpeed's own
    # optimizers compile for a minute before the first step.
    optimizer = torch.optim.AdamW(
        parameters, lr=training.learning_rate, weight_decay=training.weight_decay, fused=True
    )
    warmup_steps = round(training.warmup * total_steps)
    config = engine_config(training, scale, workers)
    # DeepSpeed's default bucket has 500 M elements, GBs that a small model never uses.
    elements = min(BUCKET, sum(p.numel() for p in parameters))
    config["zero_optimization"]["reduce_bucket_size"] = elements
    engine, *_ = deepspeed.initialize(
        model=objective,
        optimizer=optimizer,
        lr_scheduler=LambdaLR(optimizer, schedule(warmup_steps, total_steps)),
        config=config | {"checkpoint": {"load_universal": universal}},
        dist_init_required=False,
    )
    read_files_safely(engine)
    if scale.zero_stage == 0 and scale.precision == "bf16":
        undo_hidden_step(engine, fp32_gradients=training.accumulate > 1)
    if workers == 1 and scale.zero_stage == 0:
        # To sum over one worker, DeepSpeed would copy all gradients back and forth.
        engine.enable_backward_allreduce = False
    return engine


def gathered_state(module: nn.Module) -> dict[str, Tensor]:
    """Return a module's unsharded weights and saved buffers on the CPU, tied weights once; all
    ranks must call it."""
    state = {name: buffer.cpu().clone() for name, buffer in saved_buffers(module).items()}
    for name, parameter in module.named_parameters():
        sharded = [parameter] if hasattr(parameter, "ds_id") else []
        with deepspeed.zero.GatheredParameters(sharded, enabled=bool(sharded)):
            found = parameter.detach().cpu()
            # What is frozen stays as it is: no copy of it is needed.
            state[name] = found.clone() if sharded or parameter.requires_grad else found
    return state
