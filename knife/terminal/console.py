"""Progress output on stderr: redrawn in place on a terminal, line by line anywhere else."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from knife.core.words import counted

LINE_SECONDS = 10.0
_BAR = 20


class _Stream:
    """stderr, with write errors ignored: work continues even if its reader has gone."""

    def __init__(self) -> None:
        self._file = sys.stderr

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._file.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._file.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def progress_console(*, quiet: bool = False) -> Console:
    """Return a console on stderr; a quiet one prints nothing."""
    return Console(file=_Stream(), highlight=False, quiet=quiet)  # type: ignore[arg-type]


def say_line(console: Console, line: str) -> None:
    """Print a line verbatim, without wrapping: log files need whole lines."""
    console.print(line, markup=False, soft_wrap=True)


def can_draw(console: Console) -> bool:
    """Whether lines can be redrawn in place."""
    # Rich treats every stream as a terminal if FORCE_COLOR is set, as in logs of CI services.
    return console.file.isatty() and not console.is_dumb_terminal and not console.quiet


@contextmanager
def drawn(console: Console, lines: Callable[[], list[Text]]) -> Iterator[None]:
    """Draw lines below printed output, four times a second, until the context ends.

    If there are more of them than the terminal has rows, the last ones are left out.
    """

    def shown() -> Group:
        found, room = lines(), max(console.height - 2, 1)
        for line in found:
            line.no_wrap, line.overflow = True, "ellipsis"
        if len(found) > room:
            more = counted(len(found) - room + 1, "more line")
            found[room - 1 :] = [Text(f"  … and {more}", style="dim")]
        return Group(*found)

    with Live(console=console, get_renderable=shown, refresh_per_second=4, transient=True):
        yield


def bar(console: Console, share: float) -> Text:
    """Return a bar filled to `share`, between 0 and 1."""
    width = min(_BAR, console.width // 4)
    full = round(share * width)
    return Text.assemble(("━" * full, "green"), ("─" * (width - full), "bright_black"))


def clock(seconds: float) -> str:
    """Return a duration in words: 8 s, 3 min, 2 h 5 min."""
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
