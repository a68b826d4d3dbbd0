"""What the stages of a run need, and whether there is enough memory and disk.

Errors are what cannot work: weights, gradients and optimizer states larger than the memory, or
teacher states larger than the free disk. Activations are an estimate, so they only lead to a note.
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from knife.cluster.address import cluster_address
from knife.config.run import RunConfig, Training
from knife.config.scale import Scale
from knife.core.words import size
from knife.models.lora import adapters_size
from knife.plan.memory import (
    Lengths,
    MemoryEstimate,
    least,
    states_batch,
    states_bytes,
    training_need,
)
from knife.plan.sources import KnownModel, Sources
from knife.plan.stage import Stage, StatesStage, StudentStage, TeacherStage

# What a worker takes beside its training: 0.6 to 0.7 GB were seen, on a CPU with a tiny model.
_LIBRARIES = 900_000_000
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@dataclass(frozen=True)
class MemoryBudget:
    """The memory that a worker has, and where it comes from, in words."""

    memory: int
    where: str


def stage_needs(
    config: RunConfig, sources: Sources, stages: Sequence[Stage]
) -> dict[str, MemoryEstimate | int]:
    """Return what a variant's stages need, by key: a worker's memory, or the states' disk space.

    Stages with models of unknown size are left out.
    """
    needs: dict[str, MemoryEstimate | int] = {}
    scale, gpu = config.scale, on_gpu(config.scale)
    lengths, taught, align = sources.lengths, sources.teacher_lengths, config.align
    student = sources.student.size
    teacher = sources.teacher.size if sources.teacher else None
    for stage in stages:
        if isinstance(stage, TeacherStage) and teacher:
            needs[stage.key] = training_need(
                teacher,
                stage.training,
                scale,
                taught,
                rationale=True,
                adapters=_adapters(sources.teacher, stage.training),
                gpu=gpu,
            )
        elif isinstance(stage, StatesStage) and teacher and stage.stored:
            needs[stage.key] = states_bytes(teacher, taught, stage.part, stage.precision)
        elif isinstance(stage, StudentStage) and student and stage.method != "prompt":
            held = 0
            if stage.method == "knife" and teacher:
                layers = len({layer for _, layer in stage.layers})
                held = states_batch(
                    teacher, taught, stage.training, scale, layers, align.states_precision
                )
                # An online teacher computes in fp32.
                held += 4 * teacher.parameters if align.states == "online" else 0
            first, second = _tasks(stage.method, lengths)
            needs[stage.key] = training_need(
                student,
                stage.training,
                scale,
                first,
                rationale=stage.method == "rationale_input",
                adapters=_adapters(sources.student, stage.training),
                second=second,
                teacher=held,
                gpu=gpu,
            )
    return needs


def _adapters(model: KnownModel | None, training: Training) -> int | None:
    """Return the number of parameters that are trained beside a model's own, or None."""
    if model is None or training.lora is None:
        return None
    return adapters_size(model.config, training.lora)


def _tasks(method: str, lengths: Lengths) -> tuple[Lengths, Lengths | None]:
    """Return the lengths of the task in a method's step, and of its second task, if it has one.
    To generate rationales is to generate one text; no choices are scored."""
    rationale = lengths.wholes - lengths.inputs
    if method in ("explain_then_answer", "answer_then_explain", "internalize"):
        return replace(lengths, choices=1, choice=rationale + lengths.choice), None
    if method == "step_by_step":
        return lengths, replace(lengths, choices=1, choice=rationale)
    return lengths, None


def on_gpu(scale: Scale) -> bool:
    """Whether workers compute on a GPU; launcher `process` uses one if there is one."""
    if scale.launcher == "process":
        import torch

        return torch.cuda.is_available()
    return scale.gpus_per_worker > 0


def find_room(scale: Scale) -> MemoryBudget | None:
    """Return the memory of one worker on this machine; None on a cluster, whose hosts are unknown,
    or if a worker needs a GPU and there is none."""
    if scale.launcher == "ray" and cluster_address():
        return None
    if on_gpu(scale):
        import torch

        if not torch.cuda.is_available():
            return None
        found = torch.cuda.get_device_properties(0)
        share = min(1.0, scale.gpus_per_worker or 1.0)
        part = f"{share:.0%} of " if share < 1 else ""
        return MemoryBudget(
            int(found.total_memory * share), f"{part}a GPU of this machine ({found.name})"
        )
    workers = scale.min_workers or scale.workers
    memory = machine_memory() // workers
    each = f", which {workers} workers share" if workers > 1 else ""
    return MemoryBudget(memory, f"a worker's part of this machine's memory{each}")


def machine_memory() -> int:
    """Return the memory of this machine, or of the container that this process runs in."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for limit in _LIMITS:
        try:
            limits.append(int(Path(limit).read_text()))
        except (OSError, ValueError):
            continue
    return min(limits)


def room_errors(
    needs: dict[str, MemoryEstimate | int],
    stages: Sequence[Stage],
    scale: Scale,
    room: MemoryBudget | None,
) -> list[str]:
    """Return errors for training `stages` whose weights, gradients and optimizer states do not fit
    in memory."""
    errors = []
    for stage in stages:
        need = needs.get(stage.key)
        if room and isinstance(need, MemoryEstimate) and need.least > room.memory:
            errors.append(
                f"model.{stage.kind}: {count(need.parameters)} parameters take "
                f"{size(need.least)} of weights, gradients and optimizer states in each worker "
                f"({_scale_words(scale)}), but {room.where} has {size(room.memory)}; "
                f"{_advice(stage.kind, need, scale, room)}"
            )
    return list(dict.fromkeys(errors))


def room_notes(
    needs: dict[str, MemoryEstimate | int], stages: Sequence[Stage], room: MemoryBudget | None
) -> list[str]:
    """Return notes on training `stages` that may run out of memory, by estimate."""
    notes = []
    for stage in stages:
        need = needs.get(stage.key)
        if room and isinstance(need, MemoryEstimate) and need.least <= room.memory < need.peak:
            notes.append(
                f"{stage.kind}: about {size(need.peak)} in each worker at its peak by estimate, "
                f"and {room.where} has {size(room.memory)}: it may run out of memory; a larger "
                f"{stage.kind}.accumulate takes fewer examples at a time"
            )
    return list(dict.fromkeys(notes))


def worker_bytes(
    needs: dict[str, MemoryEstimate | int], stages: Sequence[Stage], scale: Scale
) -> int:
    """Return how much of a host's memory a worker takes that makes any of these stages, by
    estimate: its libraries and, unless it computes on a GPU, the largest training."""
    if on_gpu(scale):
        return _LIBRARIES
    found = [needs.get(stage.key) for stage in stages]
    peaks = [need.peak for need in found if isinstance(need, MemoryEstimate)]
    return _LIBRARIES + max(peaks, default=0)


def states_errors(
    needs: dict[str, MemoryEstimate | int], stages: Sequence[Stage], store: Path, free: int
) -> list[str]:
    """Return an error if the teacher states among `stages` do not fit on the store's disk.

    `free` is its free space; finished shards of an interrupted try are not counted again.
    """
    wanted = 0
    for stage in stages:
        need = needs.get(stage.key)
        if isinstance(need, int):
            begun = (store / "work" / f"{stage.kind}-{stage.key}").glob("shard-*.safetensors")
            wanted += max(0, need - sum(path.stat().st_size for path in begun))
    if wanted <= free:
        return []
    return [
        f"align.states: the teacher's states take {size(wanted)} on disk, but the store {store} "
        f"has {size(free)} free; set align.states=online, align.states_precision=bf16 or fewer "
        "align.input.layers, or use a store with more space"
    ]


def free_disk(store: Path) -> int:
    """Return the free disk space, in bytes, where the store is or will be."""
    there = next(path for path in (store, *store.parents) if path.exists())
    return shutil.disk_usage(there).free


def _advice(kind: str, need: MemoryEstimate, scale: Scale, room: MemoryBudget) -> str:
    """Suggest the smallest change of scale that is enough, or else adapters or a smaller model."""
    gpu, frozen = "a GPU" in room.where, need.parameters - need.trained
    # Adapters are not trained at stage 3.
    last = 2 if frozen else 3
    # The workers of one machine share its memory, so more of them do not help.
    for workers in [scale.workers, *(2**n for n in range(1, 15) if gpu and 2**n > scale.workers)]:
        for stage in range(scale.zero_stage, last + 1):
            for precision in ("fp32", "bf16"):
                values = {"workers": workers, "zero_stage": stage, "precision": precision}
                changed = scale.model_copy(update=values)
                if least(need.trained, changed, need.accumulate, frozen) <= room.memory:
                    return f"{_scale_words(changed)} would be enough"
    more = "" if gpu else " or GPUs with more memory (scale.gpus_per_worker=1)"
    fits = not frozen and 2 * need.parameters < room.memory
    few = f"low-rank adapters ({kind}.lora={{}} scale.precision=bf16), " if fits else ""
    return f"use {few}a smaller model{more}"


def _scale_words(scale: Scale) -> str:
    return (
        f"scale.workers={scale.workers} scale.zero_stage={scale.zero_stage} "
        f"scale.precision={scale.precision}"
    )


def count(number: float) -> str:
    """Format a large number: 1.5 M."""
    for unit, power in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= power:
            return f"{number / power:,.1f} {unit}"
    return f"{number:.0f}"
