"""The artifact store: results addressed by what they depend on, published whole or not at all.

    <root>/<kind>/<key>/           a published artifact with its manifest.json (sizes, checksums)
    <root>/work/<kind>-<key>/      the same while it is made: checkpoints, journal, finished shards
    <root>/locks/<kind>-<key>      held by who makes it; the system frees it when the holder dies

A folder under <kind> is complete by construction: it is renamed there after its files are on disk.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from knife.errors import UserError

_MANIFEST = "manifest.json"


def fingerprint(depends: Any) -> str:
    """Key of what a result depends on: 16 hex digits of SHA-256 over canonical JSON."""
    text = json.dumps(depends, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


_REASONS = {
    errno.ENOSPC: "the disk is full; free space or give another store",
    errno.EDQUOT: "the disk quota is used up; free space or give another store",
    errno.EACCES: "it is not writable; give another store or change its permissions",
    errno.EPERM: "it is not writable; give another store or change its permissions",
    errno.EROFS: "it lies on a read-only file system; give another store",
    errno.ENOTDIR: "a part of its path is a file; give another store",
    errno.EEXIST: "there is a file of that name; give another store",
}
# What safetensors and torch.save say of a full disk: neither raises an OSError.
_FULL = ("os error 28", "inline_container")


@contextmanager
def disk_faults(root: Path) -> Iterator[None]:
    """Turn a full or unwritable disk under `root` into a UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        code = error.errno if isinstance(error, OSError) else None
        if any(words in str(error) for words in _FULL):
            code = errno.ENOSPC
        if code not in _REASONS:
            raise
        raise UserError(f"store: {root}: {_REASONS[code]}") from error


def store_faults(root: Path) -> list[str]:
    """Why no store can be at `root`, as far as that is known without writing; empty: it can."""
    there = next(path for path in (root, *root.parents) if path.exists())
    if not there.is_dir():
        return [f"store: {root}: {there} is a file; give another store"]
    if not os.access(there, os.W_OK | os.X_OK):
        return [f"store: {root}: {there} is not writable; give another store"]
    return []


class Store:
    """A folder of artifacts. Several runs, on several hosts, may share one.

    With `write` False it is only looked at, and nothing in it is made.

    Raises:
        UserError: on construction, when the folder cannot be made or written to.
    """

    def __init__(self, root: Path | str, *, write: bool = True) -> None:
        self.root = Path(root).expanduser().resolve()
        if not write:
            return
        with disk_faults(self.root):
            (self.root / "locks").mkdir(parents=True, exist_ok=True)
            (self.root / "work").mkdir(exist_ok=True)
            probe = self.root / "work" / f".probe-{os.getpid()}"
            probe.write_text("x")
            probe.unlink()

    def path(self, kind: str, key: str) -> Path:
        """Where the artifact is, once it is published."""
        return self.root / kind / key

    def work(self, kind: str, key: str) -> Path:
        """Where it is made; the folder exists and keeps what an interrupted try left."""
        folder = self.root / "work" / f"{kind}-{key}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def has(self, kind: str, key: str) -> bool:
        """Whether the artifact is published."""
        return (self.path(kind, key) / _MANIFEST).is_file()

    def lock(self, kind: str, key: str) -> FileLock:
        """The lock of who makes the artifact; not held yet."""
        return FileLock(self.root / "locks" / f"{kind}-{key}")

    def publish(self, kind: str, key: str, depends: Any) -> Path:
        """Make the work folder an artifact: checksums, sync to disk, one rename.

        `depends` is what the key was made of; it is written beside the result. Where somebody
        else has published the same meanwhile, theirs stays and the work folder is removed.
        """
        work, final = self.work(kind, key), self.path(kind, key)
        (work / "depends.json").write_text(json.dumps(depends, indent=1, sort_keys=True))
        files = {}
        for path in sorted(p for p in work.rglob("*") if p.is_file() and p.name != _MANIFEST):
            with path.open("rb") as file:
                os.fsync(file.fileno())
            name = path.relative_to(work).as_posix()
            files[name] = {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        manifest = work / _MANIFEST
        with manifest.open("w") as file:
            json.dump({"kind": kind, "key": key, "files": files}, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        final.parent.mkdir(exist_ok=True)
        if final.exists() and not self.has(kind, key):
            # Somebody has removed the manifest: what is left is no artifact.
            self.discard(kind, key)
        try:
            work.rename(final)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            shutil.rmtree(work)
        _sync_folder(final.parent)
        return final

    def damage(self, kind: str, key: str) -> list[str]:
        """Files of a published artifact that are missing, cut or changed; none when all is well."""
        folder = self.path(kind, key)
        try:
            files = json.loads((folder / _MANIFEST).read_text())["files"]
        except (OSError, ValueError, KeyError):
            return [_MANIFEST]
        damaged = []
        for name, expected in files.items():
            path = folder / name
            whole = path.is_file() and path.stat().st_size == expected["bytes"]
            if not whole or _sha256(path) != expected["sha256"]:
                damaged.append(name)
        return damaged

    def discard(self, kind: str, key: str) -> None:
        """Take an artifact out of the store; it is gone at once for everybody."""
        grave = self.root / "work" / f"discarded-{kind}-{key}-{os.getpid()}"
        try:
            self.path(kind, key).rename(grave)
        except FileNotFoundError:
            # Another run has seen the same damage.
            return
        shutil.rmtree(grave)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
