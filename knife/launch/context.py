"""The train context of a Ray Train worker, with a watchdog over its heartbeat."""

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable

import ray.train
import ray.train.torch

from knife.compat.ray import has_mark, put_mark
from knife.core.errors import TrainingPrunedError
from knife.plan.stage import Stage
from knife.train.context import broadcast

_ASK_SECONDS = 0.5
# The exit status of a process that hangs.
HANGS = 87


class RayContext:
    """The train context of a Ray Train worker; Ray has already set up the process group.

    Args:
        name: the worker group's name, by which the driver requests a stop.
        hang_seconds: the longest time a batch may take.

    Attributes:
        goes_on: decides whether a training goes on, from epochs and metrics of an evaluation; None
            if every one does.
    """

    def __init__(self, name: str, hang_seconds: float) -> None:
        context = ray.train.get_context()
        self.rank: int = context.get_world_rank()
        self.world_size: int = context.get_world_size()
        self.device = ray.train.torch.get_device()
        self.goes_on: Callable[[int, dict[str, float]], bool] | None = None
        self._name = name
        self._told = threading.Event()
        self._hang_seconds = hang_seconds
        self._beat: float | None = None
        threading.Thread(target=self._watch, name="knife-watch", daemon=True).start()

    def evaluated(self, stage: Stage, epoch: int, metrics: dict[str, float]) -> None:
        """Go on, or end a training that is not worth more time.

        Raises:
            TrainingPrunedError: on all workers, if it does not go on.
        """
        if self.goes_on is None:
            return
        # The answer may take longer than a batch.
        self.pause_heartbeat()
        if not broadcast(self.rank == 0 and self.goes_on(epoch, metrics)):
            raise TrainingPrunedError(f"{stage.label} was ended after {epoch} epochs")

    def stop_requested(self) -> bool:
        """Whether the driver has requested a stop; only rank 0 checks."""
        return self._told.is_set()

    def heartbeat(self) -> None:
        """Restart the time limit of a batch."""
        self._beat = time.monotonic()

    def pause_heartbeat(self) -> None:
        """Suspend the time limit until the next heartbeat."""
        self._beat = None

    def _watch(self) -> None:
        """End this process if a batch exceeds the time limit: Ray replaces it. Workers blocked
        waiting for it exceed the limit too."""
        while True:
            time.sleep(_ASK_SECONDS)
            beat = self._beat
            if beat is not None and time.monotonic() - beat > self._hang_seconds:
                print(f"rank {self.rank}: no batch in {self._hang_seconds:g} s", file=sys.stderr)
                faulthandler.dump_traceback()
                os._exit(HANGS)
            if self.rank == 0 and not self._told.is_set() and stop_was_requested(self._name):
                self._told.set()


def request_stop(name: str) -> None:
    """Ask a worker group to end its training after a checkpoint."""
    put_mark(_key(name))


def stop_was_requested(name: str) -> bool:
    """Whether a stop of this worker group was requested."""
    return has_mark(_key(name))


def _key(name: str) -> bytes:
    return f"knife-end-{name}".encode()
