"""SIGTERM during a training: a checkpoint first, then the end.

Preemption of a host, a batch system's time limit and `ray job stop` send it some seconds before
they kill.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist

from knife.train.context import Context

_training = threading.Event()
_told = threading.Event()


def listen() -> Any:
    """Treat SIGTERM as a stop request while a training runs in this process, else as before.

    Must be called in the main thread; returns the previous handler.
    """
    before = signal.getsignal(signal.SIGTERM)

    def handler(number: int, frame: FrameType | None) -> None:
        if _training.is_set():
            _told.set()
        elif callable(before):
            before(number, frame)
        else:
            signal.signal(signal.SIGTERM, before)
            signal.raise_signal(signal.SIGTERM)

    signal.signal(signal.SIGTERM, handler)
    return before


@contextmanager
def noted() -> Iterator[Callable[[], bool]]:
    """Record SIGTERM instead of ending at once; yield a function that returns whether it arrived.

    In the main thread it is raised again at the end. In another thread it is recorded only if the
    process has called `listen`.
    """
    main = threading.current_thread() is threading.main_thread()
    _told.clear()
    before = listen() if main else None
    _training.set()
    try:
        yield _told.is_set
    finally:
        _training.clear()
        if main:
            signal.signal(signal.SIGTERM, before)
            if _told.is_set():
                signal.raise_signal(signal.SIGTERM)


class Agreement:
    """Makes all ranks stop at the same step, as soon as one of them is asked to stop."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._last: torch.Tensor | None = None

    def reached(self, wanted: bool) -> bool:
        """Whether to stop; all ranks must call it at every step.

        With several ranks the answer is the result of the previous step's reduction, so that
        nothing waits for it, not even a GPU.
        """
        if self._context.world_size == 1:
            return wanted
        last = self._last
        self._last = torch.tensor(float(wanted), device=self._context.device)
        dist.all_reduce(self._last)
        return last is not None and bool(last)
