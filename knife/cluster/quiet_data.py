"""Ray Data's bars and notes, of no use to a user of this package; its log file keeps them."""

import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import ray.data
from ray.data._internal.execution.execution_callback import ExecutionCallback

_until_started = ExitStack()


class _Started(ExecutionCallback):  # type: ignore[misc]
    """Hears when Ray Data has asked for its workers."""

    def before_execution_starts(self, executor: Any) -> None:  # noqa: ARG002
        _until_started.close()


@contextmanager
def quiet_data() -> Iterator[None]:
    """Execute a data set inside without a word on stdout or stderr."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.custom_execution_callback_classes = [_Started]
    for handler in logging.getLogger("ray.data").handlers:
        if handler.name == "console":
            handler.setLevel(logging.CRITICAL)
    with _until_started:
        _until_started.enter_context(_without_stderr())
        yield


@contextmanager
def _without_stderr() -> Iterator[None]:
    """Drop what this process writes to stderr meanwhile.

    Ray's core calls it an error there that a worker is one of Ray Data's
    (https://github.com/ray-project/ray/issues/57733), and nothing else keeps that line away.
    """
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
