"""Where progress goes: stderr, drawn upon where it is a terminal, line by line anywhere else."""

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
    """stderr for as long as somebody reads it: a reader that has gone stops no work."""

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
    """A console on stderr; a quiet one prints nothing."""
    return Console(file=_Stream(), highlight=False, quiet=quiet)  # type: ignore[arg-type]


def say_line(console: Console, line: str) -> None:
    """A line as it is. No wrapping: whoever keeps these lines wants them whole."""
    console.print(line, markup=False, soft_wrap=True)


def can_draw(console: Console) -> bool:
    """Whether lines can be drawn over."""
    # Rich takes every stream for a terminal where FORCE_COLOR is set, as in logs of CI services.
    return console.file.isatty() and not console.is_dumb_terminal and not console.quiet


@contextmanager
def drawn(console: Console, lines: Callable[[], list[Text]]) -> Iterator[None]:
    """Draw lines below what is printed, four times a second, until the context ends.

    Where there are more of them than the terminal has rows, the last ones are left out.
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
    """A bar that is filled to a share of 1."""
    width = min(_BAR, console.width // 4)
    full = round(share * width)
    return Text.assemble(("━" * full, "green"), ("─" * (width - full), "bright_black"))


def clock(seconds: float) -> str:
    """A duration in words: 8 s, 3 min, 2 h 5 min."""
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
