"""Silence of stderr, for what a library writes there past Python and past all of its settings."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def without_stderr() -> Iterator[None]:
    """Drop what this process writes to stderr meanwhile."""
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
