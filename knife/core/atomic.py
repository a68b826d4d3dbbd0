"""Files that are there whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from knife.core import strict_json


@contextmanager
def replacing(path: Path, unfinished: Path | None = None) -> Iterator[Path]:
    """A path beside `path` to write to, which takes its place when the context ends well.

    Folders above are made. When the context fails, `path` stays as it was.

    Args:
        path: the file.
        unfinished: a path to write to instead, on the same file system: one that nobody else
            uses, where several may write the same file at a time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = unfinished or path.with_name(f".{path.name}.tmp")
    # Somebody may have been killed while writing.
    unfinished.unlink(missing_ok=True)
    try:
        yield unfinished
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_json(path: Path, values: Any) -> None:
    """Write a JSON file that is there whole or not at all."""
    with replacing(path) as unfinished:
        unfinished.write_text(strict_json.dumps(values, indent=1))
