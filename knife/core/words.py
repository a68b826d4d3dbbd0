"""Counts, sizes and commands as text for messages."""

import re
import shlex


def counted(number: int, word: str) -> str:
    """Return a count with its noun: `1 trial`, `2 trials`."""
    return f"{number} {word}{'s'[: number != 1]}"


def in_percent(share: float) -> str:
    """Format a share with three digits: 12.5 %."""
    return f"{100 * share:.3g} %"


def size(number: float) -> str:
    """Format a number of bytes: 1.5 GB."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if number < 1000 or unit == "TB":
            return f"{number:,.{int(number < 100 and unit != 'B')}f} {unit}"
        number /= 1000
    raise AssertionError


def command_line(*words: object) -> str:
    """Return a command quoted for a shell, whatever characters its paths contain."""
    return shlex.join(_argument(str(word)) for word in words)


def _argument(word: str) -> str:
    """Return `word`, with `./` before a path that would be taken for an option."""
    return f"./{word}" if word.startswith("-") and not re.fullmatch("--[a-z-]+", word) else word
