"""What a real engine allocates and sends, by torch's profiler."""

import gc
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from knife.config.lora import Lora
from knife.config.run import Training
from knife.config.scale import Scale
from knife.data.batches import Batch
from knife.method.objective import Objective
from knife.models.load import load_backbone
from knife.models.lora import add_adapters
from knife.train.context import Context
from knife.train.engine import start_engine
from knife.train.scaled import scaled

_MARK = "measured: "


@dataclass(frozen=True)
class Measured:
    """One worker's training, in bytes.

    Attributes:
        rest: memory between two steps: weights, optimizer states, permanent buffers.
        kept: what a forward pass keeps for the backward pass.
        peak: the most at any time, from the end of the first step to that of the second.
        sent: what it sends in a step, with ring algorithms.
    """

    rest: int
    kept: int
    peak: int
    sent: int


def measure(
    folder: Path,
    scale: Scale,
    batch: Batch,
    context: Context,
    explanation: Batch | None = None,
    accumulate: int = 1,
    lora: Lora | None = None,
) -> Measured:
    """Build an engine, take two steps and measure the second; every worker calls it.

    With `accumulate` a step is made of that many batches, with `lora` adapters alone are trained.
    """
    # Objects of imported modules need not be examined in each of the collections below.
    gc.collect()
    gc.freeze()
    rows = len(batch.row_B) * context.world_size * accumulate
    training = Training(batch_size=rows, accumulate=accumulate)

    def mark(name: str) -> None:
        gc.collect()
        with record_function(_MARK + name):
            pass

    with profile(
        activities=[ProfilerActivity.CPU], profile_memory=True, record_shapes=True
    ) as profiler:
        backbone = load_backbone(folder)
        if lora:
            add_adapters(backbone, lora, 0)
        engine = start_engine(
            Objective(scaled(backbone, scale)),
            training,
            scale,
            context.world_size,
            10,
        )
        for _ in range(accumulate):
            _step(engine, batch, explanation, lambda _: None)
        mark("start")
        for _ in range(accumulate):
            _step(engine, batch, explanation, mark)
        mark("end")
    # Only so that it is not freed inside the next measurement.
    engine.destroy()
    del engine
    gc.unfreeze()
    gc.collect()
    workers = context.world_size
    wide = 2 if scale.precision == "bf16" else 4
    events = sorted(profiler.profiler.kineto_results.events(), key=lambda e: e.start_ns())
    now = peak = 0
    found: dict[str, int] = {}
    for event in events:
        name = event.name()
        if name == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
        elif name.startswith(_MARK):
            found.setdefault(name.removeprefix(_MARK), now)
            peak = now if name.endswith("start") else peak
    start = next(e.start_ns() for e in events if e.name() == _MARK + "start")
    sent = _sent([e for e in events if e.start_ns() > start], workers)
    return Measured(
        found["start"], found["forward"] - found["start"], peak, int(sent * wide)
    )  # fmt: skip


def _step(engine: Any, batch: Batch, explanation: Batch | None, mark: Any) -> None:
    engine.train()
    losses = engine(batch, None, explanation)
    mark("forward")
    engine.backward(losses.loss)
    engine.step()


def _sent(events: list[Any], workers: int) -> float:
    """Return the elements that one worker of a ring sends: an all-reduce sends each twice."""
    total = {"reduce": 0, "gather": 0, "scatter": 0}
    for event in events:
        sizes = [torch.Size(shape).numel() for shape in event.shapes() if shape]
        match event.name():
            case "gloo:all_reduce":
                total["reduce"] += max(sizes, default=0)
            case "c10d::_allgather_base_":
                total["gather"] += max(sizes)
            case "c10d::_reduce_scatter_base_":
                total["scatter"] += max(sizes)
    # On a CPU the scatter is implemented as an all-reduce.
    reduce = total["reduce"] - total["scatter"]
    return (2 * reduce + total["gather"] + total["scatter"]) * (workers - 1) / workers
