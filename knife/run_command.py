"""A run as the command does it: progress on stderr, nothing on stdout, and last words."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from knife.config import RunConfig
from knife.display import display
from knife.pipeline import Result, run


def run_with_display(config: RunConfig) -> Result:
    """Make the run and show its progress; whatever a library prints goes to stderr.

    Raises:
        UserError: as `knife.pipeline.run` does.
    """
    with stdout_to_stderr():
        return run(config, display)


def last_words(result: Result) -> list[str]:
    """Where the results are, what to do next, and what a user should know."""
    config = result.plan.config
    # A folder as it was given: shorter to type.
    store = result.store.address if result.store.bucket else Path(config.store)
    lines = [f"note: {note}" for note in result.plan.notes]
    lines += [f"warning: {line}" for line in result.unsent]
    if not result.made:
        lines.append("everything was in the store: nothing was trained again")
    lines.append(f"verdict and config: {result.folder}")
    student = result.plan.members[-1].student
    lines.append(f"a student's answers: knife predict {store}/student/{student.key} FILE")
    uri, _ = result.tracking
    lines.append(f"MLflow: {uri}" if config.track.uri else f"MLflow: knife ui --store {store}")
    return lines


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Send everything that this process and its children write to stdout to stderr."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
