"""Progress of counted work on stderr: a bar in a terminal, occasional lines anywhere else."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from knife.terminal.console import LINE_SECONDS, can_draw, clock, progress_console, say_line


@contextmanager
def counter(words: str, total: int, things: str = "questions") -> Iterator[Callable[[int], None]]:
    """Show how many of `total` `things` are done; call the yielded function with each increment.

    `words` describe the work, such as "answering".
    """
    console = progress_console()
    if can_draw(console):
        columns = [TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn()]
        with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
            task = bar.add_task(words, total=total)
            yield lambda number: bar.advance(task, number)
        return
    done, first = 0, 0
    started = said = time.monotonic()

    def count(number: int) -> None:
        nonlocal done, first, started, said
        done += number
        now = time.monotonic()
        if not first:
            # The rate is measured from here on: before this, workers start.
            first, started = done, now
        elif now - said >= LINE_SECONDS and done < total:
            said = now
            rate = (done - first) / (now - started)
            left = clock((total - done) / rate)
            say_line(
                console,
                f"{words}: {done:,} of {total:,} {things}, {rate:,.0f} a second, {left} left",
            )

    yield count
