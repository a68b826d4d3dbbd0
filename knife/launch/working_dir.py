"""The folder that a Ray job works in: which of its files travel, and how large they are.

Ray reads .gitignore and .rayignore in every folder; what it ignores, and what nobody wants on a
cluster, stays here.
"""

import logging
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from knife.compat.ray import largest_package, walk_package
from knife.core.errors import UserError

LIMIT = min(100_000_000, largest_package())
# By git's rules, in any folder; without a slash at the end, so that nobody walks through them.
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
# A whole home folder is refused before all of it is counted.
_SECONDS = 20.0


@dataclass(frozen=True)
class WorkingDir:
    """A folder as a job gets it.

    Attributes:
        folder: the folder, absolute.
        excludes: what stays here beside that which its ignore files name, by git's rules.
        files: what travels, by its path in the folder.
        size: bytes of it.
    """

    folder: Path
    excludes: tuple[str, ...]
    files: frozenset[str]
    size: int

    def holds(self, path: str) -> bool:
        """Whether a file, or something in a folder, travels."""
        return path in self.files or any(file.startswith(f"{path}/") for file in self.files)


def existing(folder: Path) -> Path:
    """The working directory's absolute path.

    Raises:
        UserError: there is no such folder.
    """
    folder = folder.expanduser().resolve()
    if not folder.is_dir():
        raise UserError(f"--working-dir: there is no folder {folder}")
    return folder


def look_at(folder: Path, ignored: list[str]) -> WorkingDir:
    """What would travel of a folder; `ignored` are more patterns of what stays here.

    Raises:
        UserError: it is too large (the largest things in it are named), or cannot be read.
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
    size = sum(sizes.values())
    if size > LIMIT or not whole:
        raise UserError(_too_large(folder, sizes, whole))
    return WorkingDir(folder, excludes, frozenset(sizes), size)


def _walk(folder: Path, excludes: tuple[str, ...], add: Callable[[Path], None]) -> None:
    """Ray's own walk, so that what is counted is what it packs.

    Raises:
        TimeoutError: there is too much of it.
    """
    quiet = logging.getLogger("knife.working_dir")
    quiet.disabled = True
    gitignore = os.environ.get("RAY_RUNTIME_ENV_IGNORE_GITIGNORE", "0") != "1"
    end = time.monotonic() + _SECONDS

    def stays(_path: Path, excluded: bool) -> bool:
        # Ray walks through what .gitignore names as `folder/` too.
        if time.monotonic() > end:
            raise TimeoutError
        return excluded

    walk_package(folder, list(excludes), stays, add, gitignore=gitignore, log=quiet)


def _too_large(folder: Path, sizes: dict[str, int], whole: bool) -> str:
    parts: Counter[str] = Counter()
    for path, size in sizes.items():
        top, slash, _ = path.partition("/")
        parts[top + slash] += size
    largest = ", ".join(f"{name} {size_words(size)}" for name, size in parts.most_common(3))
    if not whole:
        largest += f" (counted for {_SECONDS:.0f} s, and there is more)"
    return (
        f"--working-dir: {folder} has {'' if whole else 'more than '}"
        f"{size_words(sum(sizes.values()))} in {len(sizes):,} files to send, but must have at "
        f"most {size_words(LIMIT)}; the largest: {largest}. Name in .gitignore or .rayignore what "
        "the job does not need, keep data and models where all hosts see them, or give a folder "
        "that has the config files alone"
    )


def size_words(size: int) -> str:
    """A size for people."""
    return f"{size / 1e6:,.1f} MB" if size >= 100_000 else f"{size / 1e3:,.1f} kB"
