"""Errors in the lines of a file, reported so that a thousand equal errors take one line."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

SHOWN_ERRORS = 20
_SHOWN_LINES = 5


@dataclass(frozen=True, slots=True)
class LineError:
    """One thing that is wrong with a line.

    Attributes:
        message: what is wrong, what was expected and what to do.
        reason: the same in a few words that can follow "rows with", for counts by reason.
        once: whether one message is enough for all lines of a file with this reason.
    """

    message: str
    reason: str
    once: bool = False


@dataclass
class _Repeated:
    """An error that many lines have: the first line, its position among all errors, its message,
    some of the other lines, and the number of all other lines."""

    line: int
    order: int
    message: str
    others: list[int] = field(default_factory=list)
    more: int = 0

    def said(self, unit: str) -> str:
        if not self.more:
            return self.message
        units = f"{unit}s" if self.more > 1 else unit
        unsaid = self.more - len(self.others)
        lines = ", ".join(map(str, self.others)) + (f" and {unsaid:,} more" if unsaid else "")
        return f"{self.message} (the same in {units} {lines})"


class LineErrors:
    """Collects the errors in a file's lines, in memory that does not grow with their number."""

    def __init__(self, path: Path | str, unit: str = "line") -> None:
        """Start a list for `path`, whose lines or examples (`unit`) are numbered from 1."""
        self._path = path
        self._unit = unit
        self._order = 0
        self._said: list[tuple[int, int, str]] = []
        self._unsaid = 0
        self._repeated: dict[str, _Repeated] = {}

    def add(self, line: int, errors: Iterable[LineError]) -> None:
        """Record the errors in a line."""
        for error in errors:
            if not error.once:
                self.add_text(line, f"{self._where(line)}: {error.message}")
            elif error.reason not in self._repeated:
                self._order += 1
                self._repeated[error.reason] = _Repeated(line, self._order, error.message)
            else:
                known = self._repeated[error.reason]
                known.more += 1
                if len(known.others) < _SHOWN_LINES:
                    known.others.append(line)

    def add_text(self, line: int, text: str) -> None:
        """Record an error in a line, given as its complete message."""
        if len(self._said) < SHOWN_ERRORS:
            self._order += 1
            self._said.append((line, self._order, text))
        else:
            self._unsaid += 1

    def lines(self) -> list[str]:
        """Return all errors by line, at most `SHOWN_ERRORS`, and the number of those omitted."""
        repeated = [
            (error.line, error.order, f"{self._where(error.line)}: {error.said(self._unit)}")
            for error in self._repeated.values()
        ]
        said = [text for _, _, text in sorted([*repeated, *self._said])]
        unsaid = self._unsaid + len(said[SHOWN_ERRORS:])
        return [*said[:SHOWN_ERRORS], *([f"… and {unsaid} more"] if unsaid else [])]

    def _where(self, number: int) -> str:
        return where(self._path, self._unit, number)


def where(path: Path | str, unit: str, number: int) -> str:
    """Format a place in a file: a line, in the form that editors accept, or an example."""
    return f"{path}:{number}" if unit == "line" else f"{path}: {unit} {number}"


def cap(errors: list[str]) -> list[str]:
    """Return the first `SHOWN_ERRORS` errors, and a line with the number of the others."""
    more = len(errors) - SHOWN_ERRORS
    return errors if more <= 0 else [*errors[:SHOWN_ERRORS], f"… and {more} more"]


def show(value: object) -> str:
    """Format a value as JSON for a message, truncated if it is long."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= 160 else f"{text[:160]}…"


def shown_ids(ids: Sequence[str]) -> str:
    """Format the first few ids for a message."""
    more = f" and {len(ids) - _SHOWN_LINES:,} more" if len(ids) > _SHOWN_LINES else ""
    return ", ".join(map(repr, ids[:_SHOWN_LINES])) + more
