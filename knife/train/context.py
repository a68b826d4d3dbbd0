"""What a stage knows of the place it runs in. `cluster` has one context for Ray Train."""

import atexit
import os
from types import TracebackType
from typing import Any, Protocol, Self

import torch
import torch.distributed as dist
from torch import Tensor

from knife.plan.stage import Stage


class Context(Protocol):
    """One worker's place in a group of workers whose process group is up.

    Attributes:
        rank: number of this worker, from 0.
        world_size: number of workers.
        device: where this worker computes.
    """

    rank: int
    world_size: int
    device: torch.device

    def evaluated(self, stage: Stage, epoch: int, metrics: dict[str, float]) -> None:
        """Hear what a student comes to on dev, `epoch` epochs trained; what it raises ends the
        training, which a checkpoint may outlive. All workers call it."""

    def report(self, stage: str, metrics: dict[str, Any]) -> None:
        """Tell the launcher that a stage is done; all workers call it together."""

    def stop_requested(self) -> bool:
        """Whether the launcher wants the training to end after a checkpoint."""

    def heartbeat(self) -> None:
        """A sign of life, after every batch; who gives none for long is taken to hang."""

    def pause_heartbeat(self) -> None:
        """No sign of life is due until the next one."""


class PlainContext:
    """A single plain process as a group of its own: for a debugger, a test, or no Ray at all."""

    rank = 0
    world_size = 1

    def __init__(self) -> None:
        self.device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
        self.reports: list[tuple[str, dict[str, Any]]] = []

    def __enter__(self) -> Self:
        # DeepSpeed asks the environment for these, whoever made the process group.
        os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1")
        if not dist.is_initialized():
            backend = "nccl" if self.device.type == "cuda" else "gloo"
            # A store in memory: no port is opened.
            store = dist.HashStore()  # type: ignore[attr-defined]
            dist.init_process_group(backend, store=store, rank=0, world_size=1)
            atexit.register(dist.destroy_process_group)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the process group: DeepSpeed keeps to the first one that it has seen."""

    def evaluated(self, stage: Stage, epoch: int, metrics: dict[str, float]) -> None:
        """Nothing to do: the journal has it."""

    def report(self, stage: str, metrics: dict[str, Any]) -> None:
        """Keep the report."""
        self.reports.append((stage, metrics))

    def stop_requested(self) -> bool:
        """Never: SIGTERM comes to this very process."""
        return False

    def heartbeat(self) -> None:
        """Nobody waits for it: whoever halts this process in a debugger takes his time."""

    def pause_heartbeat(self) -> None:
        """Nobody waits."""


def broadcast(value: Any) -> Any:
    """Rank 0's value, on every rank."""
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def gather(value: Any) -> list[Any]:
    """Every rank's value, in order of rank, on every rank; a process without a group is alone."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def all_reduce_sum(values: Tensor) -> Tensor:
    """Sum over all ranks."""
    dist.all_reduce(values)
    return values


def barrier() -> None:
    """Until every rank has come here."""
    dist.barrier()
