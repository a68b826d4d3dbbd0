"""What machine or cluster can give, and checks of what a run requests; Ray would wait forever."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from knife.cluster.address import address_errors, cluster_address, session_is_up
from knife.cluster.local import local_errors
from knife.config.run import RunConfig
from knife.config.scale import Scale


def batch_errors(config: RunConfig) -> list[str]:
    """Return errors for batches that are too small to give every worker an example."""
    errors = []
    for name, training in (("teacher", config.teacher), ("student", config.student)):
        parts = config.scale.workers * training.accumulate
        if training.batch_size < parts:
            errors.append(
                f"{name}.batch_size: must be at least scale.workers x {name}.accumulate = {parts}, "
                f"but got {training.batch_size}"
            )
    return errors


def place_errors(config: RunConfig) -> list[str]:
    """Return why a run could not start from here: what this machine lacks, if the run is to use
    it, or what is wrong with RAY_ADDRESS."""
    return [] if config.scale.launcher == "process" else session_errors(config.scale)


def session_errors(scale: Scale) -> list[str]:
    """Return why a Ray session started here could not satisfy a scale.

    The CPUs and GPUs of a cluster (RAY_ADDRESS) are not checked: that needs a connection.
    """
    errors = start_errors()
    if not cluster_address():
        errors += capacity_errors(scale, machine(), "this machine")
    return errors


def start_errors() -> list[str]:
    """Return why Ray could not start here, or reach RAY_ADDRESS, regardless of the scale."""
    if session_is_up():
        return []
    return address_errors() if cluster_address() else local_errors()


def capacity_errors(scale: Scale, resources: dict[str, float], where: str) -> list[str]:
    """Return errors for a scale that `where` can never satisfy; `resources` are its CPU and GPU."""
    cpus, gpus = resources.get("CPU", 0), resources.get("GPU", 0)
    workers = scale.min_workers or scale.workers
    key = "scale.min_workers" if scale.min_workers else "scale.workers"
    errors = worker_errors(key, workers, cpus, where)
    if workers * scale.gpus_per_worker > gpus:
        errors.append(
            f"scale.gpus_per_worker: {workers} x {scale.gpus_per_worker:g} GPUs are requested, "
            f"but {where} has {gpus:.0f}; set fewer workers, or scale.gpus_per_worker=0"
        )
    return errors


def worker_errors(key: str, workers: int, cpus: float, where: str) -> list[str]:
    """Return an error if there are more workers than CPUs; `key` is the setting for workers."""
    if workers <= cpus:
        return []
    return [f"{key}: {workers} workers need a CPU each, but {where} has {cpus:.0f}; set fewer"]


@dataclass(frozen=True)
class Host:
    """What a host of a cluster has: CPUs, GPUs, and bytes of memory for workers."""

    cpus: float
    gpus: float
    memory: float


def groups_that_fit(scale: Scale, hosts: Sequence[Host], need: float) -> int:
    """Return how many worker groups fit on all hosts together, each worker with one CPU and `need`
    bytes of memory; at least one, since a group that may be too large is judged elsewhere."""
    workers = sum(_workers_of(host, scale, 1, need) for host in hosts)
    return max(1, workers // scale.workers)


def cpus_of_a_worker(scale: Scale, hosts: Sequence[Host], groups: int) -> int:
    """Return the most CPUs that each worker of so many groups can have."""
    workers = groups * scale.workers
    most = int(max((host.cpus for host in hosts), default=1))
    for cpus in range(most, 1, -1):
        if sum(_workers_of(host, scale, cpus, 0) for host in hosts) >= workers:
            return cpus
    return 1


def _workers_of(host: Host, scale: Scale, cpus: int, need: float) -> int:
    """Return how many workers fit on a host."""
    fit = host.cpus // cpus
    if scale.gpus_per_worker:
        # GPUs are shared by whole numbers of workers, or given whole.
        fit = min(fit, int(1 / scale.gpus_per_worker + 1e-9) * host.gpus)
    if need:
        fit = min(fit, host.memory // need)
    return int(fit)


def parallel_errors(scale: Scale, room: int, where: str) -> list[str]:
    """Return an error if more stages are to be made at a time than there is room for."""
    if scale.parallel == "auto" or scale.parallel <= room:
        return []
    each = f"{scale.workers} worker" + "s" * (scale.workers > 1)
    return [
        f"scale.parallel: {scale.parallel} stages at a time, of {each} each, are requested, but "
        f"{where} has room for {room} by CPUs, GPUs and memory; set {room} or fewer, or auto"
    ]


def resources(cpus: float, gpus: float) -> dict[str, float]:
    """Return the resources of one worker, in Ray's terms."""
    return {"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus}


def machine() -> dict[str, float]:
    """Return the CPUs and GPUs of this machine, as Ray counts them."""
    import torch

    return {"CPU": float(os.cpu_count() or 1), "GPU": float(torch.cuda.device_count())}
