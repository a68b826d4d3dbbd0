"""How many trials run at a time."""

from knife.config.run import RunConfig
from knife.tune.search.settings import Sweep


def slots(config: RunConfig, resources: dict[str, float], sweep: Sweep) -> int:
    """Return how many trials of `config` fit on a machine or cluster (CPU and GPU), at least one.

    No more than this may start, since trials of several workers would each hold part of what they
    need and none would get all of it.
    """
    scale = config.scale
    fit = int(resources.get("CPU", 0) // scale.workers)
    if scale.gpus_per_worker:
        each = scale.workers * scale.gpus_per_worker
        fit = min(fit, int(resources.get("GPU", 0) / each + 1e-9))
    return max(1, min(fit, sweep.concurrent or fit))
