"""Checksums of files."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def damaged_files(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the names of the files in a folder that differ from `files` in `bytes` or `sha256`."""
    damaged = []
    for name, expected in files.items():
        path = folder / name
        whole = path.is_file() and path.stat().st_size == expected["bytes"]
        if not whole or digest(path) != expected["sha256"]:
            damaged.append(name)
    return damaged
