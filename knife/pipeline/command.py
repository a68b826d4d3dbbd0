"""A run as the command makes it: progress on stderr, nothing on stdout, and closing lines."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from knife.config.run import RunConfig
from knife.core.words import command_line
from knife.pipeline.run import Result, run
from knife.terminal.display import display, no_display


def run_with_display(config: RunConfig, *, quiet: bool = False) -> Result:
    """Make the run and show its progress unless `quiet`; output of libraries goes to stderr.

    Raises:
        UserError: as `knife.pipeline.run.run` does.
    """
    with stdout_to_stderr():
        return run(config, no_display if quiet else display)


def last_words(result: Result, *, quiet: bool = False) -> list[str]:
    """Return lines on where the results are, what to do next, and what a user should know; with
    `quiet`, only warnings of what was lost."""
    config = result.plan.config
    # A folder as the user gave it: shorter to type.
    store = Path(config.store) if result.store.shared else result.store.address
    warnings = [f"warning: {line}" for line in result.unsent]
    if quiet:
        return warnings
    lines = [*(f"note: {note}" for note in result.plan.notes), *warnings]
    if not result.made:
        lines.append("everything was in the store: nothing was trained")
    lines.append(f"verdict, config and report: {result.folder}")
    student = result.plan.members[-1].student
    predict = command_line("knife", "predict", f"{store}/student/{student.key}", "FILE")
    lines.append(f"a student's answers: {predict}")
    return [*lines, *result.links]


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Redirect to stderr everything that this process and its children write to stdout."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
