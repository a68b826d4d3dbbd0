"""What a stage knows about where it runs. `knife.launch.context` has the one for Ray Train."""

import atexit
import os
from typing import Any, Protocol, Self

import torch
import torch.distributed as dist
from torch import Tensor

from knife.plan.stage import Stage


class Context(Protocol):
    """One worker's place in a group of workers whose process group is initialized.

    Attributes:
        rank: number of this worker, from 0.
        world_size: number of workers.
        device: the device this worker computes on.
    """

    rank: int
    world_size: int
    device: torch.device

    def evaluated(self, stage: Stage, epoch: int, metrics: dict[str, float]) -> None:
        """Receive a student's metrics on dev after `epoch` epochs. An exception raised here ends
        the training, whose checkpoint may remain. All workers call it."""

    def stop_requested(self) -> bool:
        """Whether the launcher wants the training to end after a checkpoint."""

    def heartbeat(self) -> None:
        """Signal progress, after every batch; a worker that does not for long counts as hung."""

    def pause_heartbeat(self) -> None:
        """Expect no heartbeat until the next one."""


class PlainContext:
    """A single plain process as a group of one: for a debugger, a test, or work without Ray."""

    rank = 0
    world_size = 1

    def __init__(self) -> None:
        self.device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")

    def __enter__(self) -> Self:
        # DeepSpeed reads these from the environment even if the process group exists.
        os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1")
        if not dist.is_initialized():
            backend = "nccl" if self.device.type == "cuda" else "gloo"
            # A store in memory: no port is opened.
            store = dist.HashStore()  # type: ignore[attr-defined]
            dist.init_process_group(backend, store=store, rank=0, world_size=1)
            atexit.register(dist.destroy_process_group)
        return self

    def __exit__(self, *_: object) -> None:
        """Keep the process group: DeepSpeed holds on to the first one it has seen."""

    def evaluated(self, stage: Stage, epoch: int, metrics: dict[str, float]) -> None:
        """Do nothing: the metrics are in the journal."""

    def stop_requested(self) -> bool:
        """Return False: SIGTERM reaches this process directly."""
        return False

    def heartbeat(self) -> None:
        """Do nothing: there is no time limit, so that a debugger may halt this process."""

    def pause_heartbeat(self) -> None:
        """Do nothing."""


def broadcast(value: Any) -> Any:
    """Return rank 0's value on every rank."""
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def gather(value: Any) -> list[Any]:
    """Return all ranks' values, by rank, on every rank; without a process group, the own one."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def all_reduce_sum(values: Tensor) -> Tensor:
    """Sum `values` over all ranks, in place."""
    dist.all_reduce(values)
    return values


def barrier() -> None:
    """Wait until every rank has reached this call."""
    dist.barrier()
