"""Ray Data's bars and notes, of no use to a user of this package; its log file keeps them."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import ray.data

from knife.compat.ray import execution_callback
from knife.launch.silence import without_stderr

_until_started = ExitStack()


class _Started(execution_callback()):  # type: ignore[misc]
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
        # Ray's core calls it an error there that a worker is one of Ray Data's
        # (https://github.com/ray-project/ray/issues/57733), and nothing else keeps that line away.
        _until_started.enter_context(without_stderr())
        yield
