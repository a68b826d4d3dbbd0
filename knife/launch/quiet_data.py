"""Silence for Ray Data's progress bars and notes, useless to our users; its log file has them."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import ray.data

from knife.compat.ray import execution_callback
from knife.launch.silence import without_stderr

_until_started = ExitStack()


class _Started(execution_callback()):  # type: ignore[misc]
    """Called when Ray Data has requested its workers."""

    def before_execution_starts(self, executor: Any) -> None:  # noqa: ARG002
        _until_started.close()


@contextmanager
def quiet_data() -> Iterator[None]:
    """Silence stdout and stderr while a dataset is executed inside."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.custom_execution_callback_classes = [_Started]
    for handler in logging.getLogger("ray.data").handlers:
        if handler.name == "console":
            handler.setLevel(logging.CRITICAL)
    with _until_started:
        # Ray's core logs an error to stderr merely because a worker belongs to Ray Data
        # (https://github.com/ray-project/ray/issues/57733); nothing else suppresses that line.
        _until_started.enter_context(without_stderr())
        yield
