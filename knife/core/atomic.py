"""Atomic file writes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from knife.core import strict_json

_UNFINISHED = ".tmp"


@contextmanager
def replacing(path: Path, unfinished: Path | None = None) -> Iterator[Path]:
    """Yield a temporary path beside `path` that replaces it when the context exits cleanly.

    Creates parent folders. If the context raises, `path` is left unchanged.

    Args:
        path: the file to replace.
        unfinished: the temporary path to use instead, on the same file system. Must be unique
            to this writer when several may write `path` at the same time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = unfinished or path.with_name(f".{path.name}{_UNFINISHED}")
    # A previous writer may have been killed midway.
    unfinished.unlink(missing_ok=True)
    try:
        yield unfinished
        sync(unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def files_below(folder: Path) -> list[Path]:
    """Return the files below a folder, sorted, without those that `replacing` has not finished."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [p for p in paths if not (p.name.startswith(".") and p.name.endswith(_UNFINISHED))]


def sync(path: Path) -> None:
    """Wait until a file, or the list of a folder's files, is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str, newline: str | None = None) -> None:
    """Write a UTF-8 text file atomically; `newline` is that of `open`."""
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", newline=newline)


def write_json(path: Path, values: Any) -> None:
    """Write a JSON file atomically."""
    write_text(path, strict_json.dumps(values, indent=1))
