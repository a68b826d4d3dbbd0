"""The journal of a stage: one JSON line per measurement, the source of progress and tracking.

The stage appends to it while it runs; followers of the stage read it.
"""

import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from knife.core import strict_json
from knife.core.atomic import write_text
from knife.store.store import Store

log = logging.getLogger(__name__)

NAME = "journal.jsonl"


class Row(TypedDict):
    """One row: `time` in Unix seconds, `metrics` by name, or a `note` for people instead."""

    step: int
    epoch: NotRequired[float]
    time: float
    metrics: dict[str, float]
    note: NotRequired[str]


@dataclass(frozen=True, slots=True)
class Position:
    """How far a journal has been read.

    Attributes:
        offset: number of bytes read.
        last: the last line read, with its line end. If the file has another one there, the journal
            was truncated and rewritten, and reading restarts from its beginning.
    """

    offset: int = 0
    last: bytes = b""


def read_rows(path: Path, position: Position) -> tuple[list[Row], Position]:
    """Read the complete rows of `path` after `position`; return them and the new position.

    A last line that is still being written is left for the next call. A journal that was truncated
    (by a stage resuming from its checkpoint) is read again from its beginning, so rows can come
    twice: callers skip the steps that they already have.

    Raises:
        OSError: the file cannot be read; FileNotFoundError if there is none.
    """
    with path.open("rb") as file:
        file.seek(position.offset - len(position.last))
        if file.read(len(position.last)) != position.last:
            position = Position()
            file.seek(0)
        text = file.read()
    whole = text[: text.rfind(b"\n") + 1]
    if not whole:
        return [], position
    lines = whole.splitlines(keepends=True)
    rows = [row for line in lines if (row := _row(line, path)) is not None]
    return rows, Position(position.offset + len(whole), lines[-1])


def read_stage(store: Store, kind: str, key: str, position: Position) -> tuple[list[Row], Position]:
    """Read the journal of a running or finished stage as `read_rows` does; no rows if none exists.

    Raises:
        OSError: it cannot be read.
    """
    for path in store.journals(kind, key):
        try:
            return read_rows(path, position)
        except FileNotFoundError:
            continue
    return [], position


def _row(line: bytes, path: Path) -> Row | None:
    try:
        row = json.loads(line)
        whole: Row = {
            "step": int(row["step"]),
            "time": float(row["time"]),
            "metrics": {name: float(value) for name, value in row["metrics"].items()},
        }
        if "epoch" in row:
            whole["epoch"] = float(row["epoch"])
        if "note" in row:
            whole["note"] = str(row["note"])
        return whole
    except (ValueError, TypeError, KeyError, AttributeError):
        # Stopping here would hide all the rows that follow.
        log.warning("%s: skipped a line that is not a row of metrics: %.80r", path, line)
        return None


class Journal:
    """Writes `{"step", "epoch", "time", "metrics"}` lines; `time` is in Unix seconds."""

    def __init__(self, folder: Path, from_step: int = 0) -> None:
        """Resume after `from_step`: lines of later steps are from an interrupted try."""
        path = folder / NAME
        kept = []
        if path.is_file():
            for line in path.read_text().splitlines(keepends=True):
                if line.endswith("\n") and json.loads(line)["step"] <= from_step:
                    kept.append(line)
            write_text(path, "".join(kept) if from_step else "")
        self._file = path.open("a")

    def add(self, step: int, epoch: float | None, metrics: dict[str, float]) -> None:
        """Add a line and flush it to readers; `epoch` is given by trainings."""
        row: dict[str, Any] = {"step": step, "time": time.time(), "metrics": metrics}
        if epoch is not None:
            row["epoch"] = round(epoch, 4)
        self._write(row)

    def note(self, step: int, text: str) -> None:
        """Add a note for people on what happened before this step."""
        self._write({"step": step, "time": time.time(), "metrics": {}, "note": text})

    def _write(self, row: dict[str, Any]) -> None:
        self._file.write(strict_json.dumps(row) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
