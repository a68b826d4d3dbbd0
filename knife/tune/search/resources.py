"""How many trials fit at a time."""

from knife.config.run import RunConfig
from knife.tune.search.settings import Sweep


def slots(config: RunConfig, resources: dict[str, float], sweep: Sweep) -> int:
    """How many trials of `config` fit into a machine or cluster (its CPU and GPU), at least one.

    Trials of several workers never start more than this: each would hold a part of what it
    needs, and none would have all of it.
    """
    scale = config.scale
    fit = int(resources.get("CPU", 0) // scale.workers)
    if scale.gpus_per_worker:
        each = scale.workers * scale.gpus_per_worker
        fit = min(fit, int(resources.get("GPU", 0) / each + 1e-9))
    return max(1, min(fit, sweep.concurrent or fit))
