"""The folder that a Ray job works in: which of its files are sent, and how large they are.

Ray reads .gitignore and .rayignore in every folder. What these exclude, and what is useless on a
cluster, is not sent.
"""

import logging
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from knife.compat.ray import walk_package
from knife.core.errors import UserError
from knife.core.words import size

# Ray itself takes several times as much.
LIMIT = 100_000_000
# By git's rules, in any folder; without a trailing slash, so that Ray does not walk through them.
IGNORED = (
    ".git",
    ".venv",
    "venv",
    "node_modules",
    "__pycache__",
    "*.egg-info",
    ".mypy_cache",
    ".ruff_cache",
    ".pytest_cache",
    ".hypothesis",
    ".ipynb_checkpoints",
    "knife-store",
    "mlruns",
    "mlartifacts",
    # Keys of this machine.
    ".env",
)
# A home folder, say, is refused before all of it is counted.
_SECONDS = 20.0


@dataclass(frozen=True)
class WorkingDir:
    """A folder as a job gets it.

    Attributes:
        folder: the folder's absolute path.
        excludes: patterns of what is not sent besides its ignore files', by git's rules.
        files: paths within the folder of the files that are sent.
        size: their total size in bytes.
    """

    folder: Path
    excludes: tuple[str, ...]
    files: frozenset[str]
    size: int

    def holds(self, path: str) -> bool:
        """Whether a file, or something in a folder, is sent."""
        return path in self.files or any(file.startswith(f"{path}/") for file in self.files)


def existing(folder: Path) -> Path:
    """Return the working directory's absolute path.

    Raises:
        UserError: there is no such folder.
    """
    folder = folder.expanduser().resolve()
    if not folder.is_dir():
        raise UserError(f"--working-dir: the folder {folder} does not exist")
    return folder


def look_at(folder: Path, ignored: list[str]) -> WorkingDir:
    """Find what would be sent of a folder; `ignored` are further patterns of what is not.

    Raises:
        UserError: it is too large (its largest entries are named) or cannot be read.
    """
    excludes = (*IGNORED, *ignored)
    sizes: dict[str, int] = {}
    whole = True

    def add(path: Path) -> None:
        if path.is_file():
            sizes[path.relative_to(folder).as_posix()] = path.stat().st_size

    try:
        _walk(folder, excludes, add)
    except TimeoutError:
        whole = False
    except OSError as error:
        raise UserError(
            f"--working-dir: {error.filename} cannot be read: {error.strerror}"
        ) from error
    total = sum(sizes.values())
    if total > LIMIT or not whole:
        raise UserError(_too_large(folder, sizes, whole))
    return WorkingDir(folder, excludes, frozenset(sizes), total)


def _walk(folder: Path, excludes: tuple[str, ...], add: Callable[[Path], None]) -> None:
    """Walk the folder with Ray's own function, so that exactly what it packs is counted.

    Raises:
        TimeoutError: the folder is too large to count in time.
    """
    quiet = logging.getLogger("knife.working_dir")
    quiet.disabled = True
    gitignore = os.environ.get("RAY_RUNTIME_ENV_IGNORE_GITIGNORE", "0") != "1"
    end = time.monotonic() + _SECONDS

    def stays(_path: Path, excluded: bool) -> bool:
        # Ray also walks through what .gitignore names as `folder/`.
        if time.monotonic() > end:
            raise TimeoutError
        return excluded

    walk_package(folder, list(excludes), stays, add, gitignore=gitignore, log=quiet)


def _too_large(folder: Path, sizes: dict[str, int], whole: bool) -> str:
    parts: Counter[str] = Counter()
    for path, own in sizes.items():
        top, slash, _ = path.partition("/")
        parts[top + slash] += own
    largest = ", ".join(f"{name} {size(own)}" for name, own in parts.most_common(3))
    if not whole:
        largest += f" (counted for {_SECONDS:.0f} s, and there is more)"
    return (
        f"--working-dir: {folder} has {'' if whole else 'more than '}"
        f"{size(sum(sizes.values()))} in {len(sizes):,} files to send, but must have at "
        f"most {size(LIMIT)}; the largest: {largest}. List in .gitignore or .rayignore what "
        "the job does not need, keep data and models on storage that all hosts share, or give "
        "a folder with only the config files"
    )
