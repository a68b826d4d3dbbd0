"""Whether machine or cluster can give what a run asks for: what it cannot would be waited for."""

import os

from knife.config import RunConfig, Scale


def batch_faults(config: RunConfig) -> list[str]:
    """Batches that are too small to give every worker an example."""
    faults = []
    for name, training in (("teacher", config.teacher), ("student", config.student)):
        parts = config.scale.workers * training.accumulate
        if training.batch_size < parts:
            faults.append(
                f"{name}.batch_size: must be at least scale.workers x {name}.accumulate = {parts}, "
                f"but got {training.batch_size}"
            )
    return faults


def place_faults(config: RunConfig) -> list[str]:
    """What this machine cannot give, where a run is to work on it.

    The CPUs and GPUs of a cluster (RAY_ADDRESS) are known only when it is asked.
    """
    if config.scale.launcher == "process" or "RAY_ADDRESS" in os.environ:
        return []
    return capacity_faults(config.scale, machine(), "this machine")


def capacity_faults(scale: Scale, resources: dict[str, float], where: str) -> list[str]:
    """Faults of a scale that `where` can never satisfy; `resources` are its CPU and GPU."""
    cpus, gpus = resources.get("CPU", 0), resources.get("GPU", 0)
    workers = scale.min_workers or scale.workers
    key = "scale.min_workers" if scale.min_workers else "scale.workers"
    faults = worker_faults(key, workers, cpus, where)
    if workers * scale.gpus_per_worker > gpus:
        faults.append(
            f"scale.gpus_per_worker: {workers} x {scale.gpus_per_worker:g} GPUs are asked, "
            f"but {where} has {gpus:.0f}; ask for fewer workers or scale.gpus_per_worker=0"
        )
    return faults


def worker_faults(key: str, workers: int, cpus: float, where: str) -> list[str]:
    """More workers than CPUs; `key` is who asks for them."""
    if workers <= cpus:
        return []
    return [f"{key}: {workers} workers need a CPU each, but {where} has {cpus:.0f}; ask for fewer"]


def machine() -> dict[str, float]:
    """What this machine has, as Ray counts it."""
    import torch

    return {"CPU": float(os.cpu_count() or 1), "GPU": float(torch.cuda.device_count())}
