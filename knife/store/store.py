"""The artifact store: results addressed by what they depend on, published atomically.

    <kind>/<key>/           a published artifact with its manifest.json (sizes, checksums)
    work/<kind>-<key>/      work in progress: checkpoints, journal, finished shards
    locks/<kind>-<key>      held by the process that makes it; freed by the system if it dies

A folder under <kind> is complete by construction: it is renamed there after its files are on disk.

A store may be a bucket. Then each host has its own root, as above, for what it has read and what
it makes, and the bucket has

    <kind>/<key>/manifest.json   written last: an artifact is published once it has one
    <kind>/<key>/<attempt>/      its files; every attempt to make it has a separate folder
    work/<kind>-<key>/           checkpoints
    journals/<kind>-<key>.jsonl  the journal, some seconds behind
    runs/, sweeps/               configs and results

A bucket has no locks: two hosts that start the same work at the same time may both do it. The
manifest that is written last counts, and every manifest refers to a complete set of files.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock

from knife.core import strict_json
from knife.core.atomic import files_below, sync, write_json, write_text
from knife.store.bucket import Bucket, artifact_place, cache_folder, is_url, new_attempt, url_errors
from knife.store.checksums import damaged_files, digest
from knife.store.disk import disk_errors

_MANIFEST = "manifest.json"
_JOURNAL = "journal.jsonl"
Files = dict[str, dict[str, Any]]


class Keyed(Protocol):
    """Something that is stored under a kind and a key, as the result of a stage is."""

    @property
    def kind(self) -> str:
        """The kind of the artifact."""

    @property
    def key(self) -> str:
        """The key of the artifact."""


def fingerprint(depends: Any) -> str:
    """Return the key for what a result depends on: 16 hex digits of SHA-256 of canonical JSON."""
    text = strict_json.dumps(depends, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def store_root(store: Path | str) -> Path:
    """Return the folder of this host that a store works in, whether it is a folder or a bucket."""
    return cache_folder(str(store)) if is_url(store) else Path(store).expanduser().resolve()


def store_address(store: Path | str) -> str:
    """Return the store's absolute path or its url, valid anywhere on this host."""
    return str(store).rstrip("/") if is_url(store) else str(store_root(store))


def artifact_folder(where: str) -> Path:
    """Return the folder of an artifact, given by its path or its url, STORE/KIND/KEY.

    Raises:
        UserError: the url is not an artifact's, or its bucket does not exist or denies access.
    """
    if not is_url(where):
        return Path(where).expanduser()
    address, kind, key = artifact_place(where)
    return Store(address).path(kind, key)


def store_errors(store: Path | str) -> list[str]:
    """Return why a store cannot be there, as far as is known without writing; empty if it can."""
    root = store_root(store)
    there = next(path for path in (root, *root.parents) if path.exists())
    if not there.is_dir():
        return [f"store: {root}: {there} is a file; give another store"]
    if not os.access(there, os.W_OK | os.X_OK):
        return [f"store: {root}: {there} is not writable; give another store"]
    if is_url(store):
        return url_errors(str(store)) or Bucket(str(store)).errors()
    return []


class Store:
    """Artifacts in a folder or a bucket. Several runs, on several hosts, may share one.

    With `write` False it is read-only, and construction creates nothing.

    Attributes:
        address: a folder's absolute path, or a bucket's url.
        root: the folder of this host that it works in.
        shared: whether all hosts work in the same `root`; with a bucket, each has its own.
        seconds: polling interval for what others write: with a bucket, each poll is a request.

    Raises:
        UserError: on construction, if it cannot be created or written to.
    """

    def __init__(self, store: Path | str, *, write: bool = True) -> None:
        self.root = store_root(store)
        self.address = store_address(store)
        self._bucket = Bucket(self.address) if is_url(store) else None
        self.shared = self._bucket is None
        self.seconds = 0.0 if self.shared else 3.0
        self._write = write
        if not write:
            return
        with disk_errors(self.root):
            (self.root / "locks").mkdir(parents=True, exist_ok=True)
            (self.root / "work").mkdir(exist_ok=True)
            probe = self.root / "work" / f".probe-{os.getpid()}"
            probe.write_text("x")
            probe.unlink(missing_ok=True)  # Threads of this process share it.

    def path(self, kind: str, key: str) -> Path:
        """Return the folder of the published artifact, downloading it from a bucket first.

        Raises:
            OSError: the download is incomplete or damaged.
        """
        if self._bucket and self._write and self.has(kind, key):
            damaged = self._fetch(kind, key)
            if damaged:
                raise OSError(
                    f"{self.address}/{kind}/{key} is incomplete or damaged ({', '.join(damaged)}); "
                    "run the same command again to check it, and to make it again if necessary"
                )
        return self.root / kind / key

    def work(self, kind: str, key: str) -> Path:
        """Return the artifact's work folder, creating it; it keeps what an interrupted try left."""
        folder = self.root / "work" / f"{kind}-{key}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def has(self, kind: str, key: str) -> bool:
        """Whether the artifact is published."""
        if self._bucket:
            return self._bucket.size(f"{kind}/{key}/{_MANIFEST}") is not None
        return self._is_here(kind, key)

    def have(self, stages: Iterable[Keyed]) -> set[tuple[str, str]]:
        """Return kind and key of those stages whose artifacts are published."""
        places = [(stage.kind, stage.key) for stage in stages]
        if self._bucket is None:
            return {place for place in places if self._is_here(*place)}
        names = {f"{kind}/{key}/{_MANIFEST}": (kind, key) for kind, key in places}
        return {names[name] for name in self._bucket.existing(names)}

    def _is_here(self, kind: str, key: str) -> bool:
        return (self.root / kind / key / _MANIFEST).is_file()

    def manifest(self, kind: str, key: str) -> dict[str, Any] | None:
        """Return the manifest of a published artifact, with its `files`, or None without one."""
        try:
            if self._bucket:
                text = self._bucket.read(f"{kind}/{key}/{_MANIFEST}") or b""
            else:
                text = (self.root / kind / key / _MANIFEST).read_bytes()
            about: dict[str, Any] = json.loads(text)
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None
        wanted = {"files", "attempt"} if self._bucket else {"files"}
        return about if wanted <= set(about) else None

    def read(self, kind: str, key: str, name: str) -> str:
        """Read a text file of a published artifact, as `read_bytes` does."""
        return self.read_bytes(kind, key, name).decode()

    def read_bytes(self, kind: str, key: str, name: str) -> bytes:
        """Read a file of a published artifact; from a bucket, only this file is fetched.

        Raises:
            FileNotFoundError: there is no such artifact, or no such file in it.
        """
        if self._bucket is None or self._is_here(kind, key):
            return (self.root / kind / key / name).read_bytes()
        about = self.manifest(kind, key)
        content = self._bucket.read(f"{kind}/{key}/{about['attempt']}/{name}") if about else None
        if content is None:
            raise FileNotFoundError(f"{self.address}/{kind}/{key} has no {name}")
        return content

    def lock(self, kind: str, key: str) -> FileLock:
        """Return the lock to hold while making the artifact; it is not yet acquired."""
        return FileLock(self.root / "locks" / f"{kind}-{key}")

    def publish(self, kind: str, key: str, depends: Any) -> Path:
        """Turn the work folder into an artifact: checksums, sync to disk, one rename.

        `depends` is what the key was computed from; it is stored with the result. If another
        process has published the same in the meantime, that one stays and this work is removed.
        """
        self.describe(kind, key, depends)
        if self._bucket:
            attempt = new_attempt()
            files = self.upload(kind, key, attempt, self.made(kind, key))
            self.conclude(kind, key, attempt, files)
            self.hand_over(kind, key, files)
            return self.path(kind, key)
        files = self._files(kind, key, self.made(kind, key))
        self._settle(self.work(kind, key), kind, key, files)
        return self.path(kind, key)

    def describe(self, kind: str, key: str, depends: Any) -> None:
        """Write what a result depends on beside it."""
        path = self.work(kind, key) / "depends.json"
        path.write_text(strict_json.dumps(depends, indent=1, sort_keys=True))

    def made(self, kind: str, key: str) -> list[str]:
        """Return the names of the files in this host's work folder."""
        work = self.work(kind, key)
        names = [path.relative_to(work).as_posix() for path in files_below(work)]
        return [name for name in names if name != _MANIFEST]

    def upload(self, kind: str, key: str, attempt: str, names: list[str]) -> Files:
        """Upload files of this host's work folder to the bucket, without publishing them."""
        assert self._bucket
        work, files = self.work(kind, key), self._files(kind, key, names)
        self._bucket.upload((work / name, f"{kind}/{key}/{attempt}/{name}") for name in files)
        return files

    def conclude(self, kind: str, key: str, attempt: str, files: Files) -> None:
        """Publish the files that all hosts have uploaded for an attempt."""
        assert self._bucket
        manifest = {"kind": kind, "key": key, "attempt": attempt, "files": files}
        name = f"{kind}/{key}/{_MANIFEST}"
        if self._bucket.size(name) is None:
            self._bucket.write(name, strict_json.dumps(manifest, indent=1).encode())
        else:
            self._bucket.remove_folder(f"{kind}/{key}/{attempt}")
        self._bucket.remove_folder(f"work/{kind}-{key}")

    def hand_over(self, kind: str, key: str, files: Files | None = None) -> None:
        """Keep what this host has made for its own readers: an artifact with all `files`, or a
        part of one, whose other files are fetched when it is read."""
        made, fetched = self.work(kind, key), self._fetched(kind, key)
        with self._fetching(kind, key):
            if self._is_here(kind, key):
                shutil.rmtree(made)
            elif files:
                self._settle(made, kind, key, files)
            else:
                shutil.rmtree(fetched, ignore_errors=True)
                made.rename(fetched)

    def _files(self, kind: str, key: str, names: list[str]) -> Files:
        """Sync files of the work folder to disk, and return their sizes and checksums."""
        work, files = self.work(kind, key), {}
        for name in names:
            path = work / name
            sync(path)
            files[name] = {"bytes": path.stat().st_size, "sha256": digest(path)}
        return files

    def _settle(self, work: Path, kind: str, key: str, files: Files) -> None:
        """Move a folder of complete files into place as the artifact in this host's root."""
        write_json(work / _MANIFEST, {"kind": kind, "key": key, "files": files})
        final = self.root / kind / key
        final.parent.mkdir(exist_ok=True)
        if final.exists() and not self._is_here(kind, key):
            # The manifest was removed, so what is left is not an artifact.
            self._discard_here(kind, key)
        try:
            work.rename(final)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            shutil.rmtree(work)
        sync(final.parent)

    def _fetched(self, kind: str, key: str) -> Path:
        return self.root / "work" / f"fetched-{kind}-{key}"

    def _fetching(self, kind: str, key: str) -> FileLock:
        return FileLock(self.root / "locks" / f"fetched-{kind}-{key}")

    def _fetch(self, kind: str, key: str) -> list[str]:
        """Download an artifact from the bucket; return the names of missing or damaged files."""
        assert self._bucket
        with self._fetching(kind, key):
            if self._is_here(kind, key):
                return []
            about = self.manifest(kind, key)
            if about is None:
                return [_MANIFEST]
            work, files, attempt = self._fetched(kind, key), about["files"], about["attempt"]
            work.mkdir(parents=True, exist_ok=True)
            for path in [p for p in work.rglob("*") if p.is_file()]:
                if path.relative_to(work).as_posix() not in files:
                    path.unlink()
            # The second pass is for files that were damaged in transit.
            for _ in range(2):
                missing = damaged_files(work, files)
                try:
                    self._bucket.download(
                        (f"{kind}/{key}/{attempt}/{name}", work / name) for name in missing
                    )
                except FileNotFoundError:
                    break
            damaged = damaged_files(work, files)
            if not damaged:
                self._settle(work, kind, key, files)
            return damaged

    def damage(self, kind: str, key: str) -> list[str]:
        """Return the files of a published artifact that are missing, truncated or changed.

        In a bucket, a read-only store checks sizes alone, since checksums need all files
        downloaded.
        """
        about = self.manifest(kind, key)
        if about is None:
            return [_MANIFEST]
        files: Files = about["files"]
        if self._bucket is None:
            return damaged_files(self.root / kind / key, files)
        there = self._bucket.names(f"{kind}/{key}/{about['attempt']}")
        damaged = [name for name, of in files.items() if there.get(name) != of["bytes"]]
        if damaged or not self._write:
            return damaged
        if self._is_here(kind, key) and damaged_files(self.root / kind / key, files):
            self._discard_here(kind, key)
        return self._fetch(kind, key)

    def discard(self, kind: str, key: str) -> None:
        """Remove an artifact from the store, immediately for all readers."""
        if self._bucket:
            self._bucket.remove([f"{kind}/{key}/{_MANIFEST}"])
            self._bucket.remove_folder(f"{kind}/{key}")
            shutil.rmtree(self._fetched(kind, key), ignore_errors=True)
        self._discard_here(kind, key)

    def _discard_here(self, kind: str, key: str) -> None:
        discarded = self.root / "work" / f"discarded-{kind}-{key}-{os.getpid()}"
        try:
            (self.root / kind / key).rename(discarded)
        except FileNotFoundError:
            # Another run found the same damage first.
            return
        shutil.rmtree(discarded)

    def journals(self, kind: str, key: str) -> list[Path]:
        """Return the possible paths of a stage's journal, in order; a bucket's is downloaded."""
        done, work = self.root / kind / key, self.root / "work" / f"{kind}-{key}"
        name = f"journals/{kind}-{key}.jsonl"
        local = self.root / name
        if self._bucket is None:
            # The stage may move from work to done between two looks, never back. The last path
            # exists if the folder is the local root of a bucket.
            return [*(folder / _JOURNAL for folder in (done, work, done)), local]
        size = self._bucket.size(name)
        if size is not None and not (local.is_file() and local.stat().st_size == size):
            self._bucket.download([(name, local)])
        return [local]

    def drop_work(self, kind: str, key: str) -> None:
        """Remove the unfinished work on an artifact that will not be made."""
        shutil.rmtree(self.root / "work" / f"{kind}-{key}", ignore_errors=True)
        if self._bucket:
            self._bucket.remove_folder(f"work/{kind}-{key}")
            self._bucket.remove([f"journals/{kind}-{key}.jsonl"])

    def begun(self, kind: str, key: str) -> set[str]:
        """Return unique names of the checkpoints and shards that an unfinished try has kept."""
        folder = self.root / "work" / f"{kind}-{key}"
        kept = [*folder.glob("checkpoints/*/place.json"), *folder.glob("shard-*.safetensors")]
        found = {str(path) for path in kept}
        if self._bucket:
            found |= {n for n in self._bucket.names(f"work/{folder.name}") if "/part-" in n}
        return found

    def attach(self, kind: str, key: str, name: str, text: str) -> None:
        """Add a file to a published artifact's folder that is not part of the artifact."""
        write_text(self.path(kind, key) / name, text)
        if self._bucket:
            self._bucket.write(f"{kind}/{key}/{name}", text.encode())

    def attached(self, kind: str, key: str, name: str) -> str | None:
        """Read a file added by `attach`, or return None if there is none."""
        if self._bucket:
            content = self._bucket.read(f"{kind}/{key}/{name}")
            return content.decode() if content else None
        path = self.root / kind / key / name
        return path.read_text(encoding="utf-8") if path.is_file() else None

    def note(self, name: str, values: Any) -> None:
        """Leave a small note in `work` for every host that uses this store."""
        text = strict_json.dumps(values)
        if self._bucket:
            self._bucket.write(f"work/{name}", text.encode())
            return
        write_text(self.root / "work" / name, text)

    def noted(self, name: str) -> Any:
        """Read a note, or return None if there is none."""
        if self._bucket:
            return json.loads(self._bucket.read(f"work/{name}") or b"null")
        path = self.root / "work" / name
        return json.loads(path.read_text()) if path.is_file() else None

    def forget(self, name: str) -> None:
        """Remove a note."""
        if self._bucket:
            self._bucket.remove([f"work/{name}"])
        else:
            (self.root / "work" / name).unlink(missing_ok=True)

    def keep(self, folder: Path) -> None:
        """Upload a folder of results below the root, a run's or a sweep's, to the bucket."""
        if self._bucket:
            paths = files_below(folder)
            self._bucket.upload((path, path.relative_to(self.root).as_posix()) for path in paths)

    def results(self, kind: str) -> list[Path]:
        """Return the folders of all `runs` or `sweeps`; `recall` downloads what is in one."""
        if self._bucket:
            for name in {n.split("/")[0] for n in self._bucket.names(kind)}:
                (self.root / kind / name).mkdir(parents=True, exist_ok=True)
        return list((self.root / kind).glob("*/"))

    def drop_results(self, folder: Path, names: Iterable[str]) -> None:
        """Remove files of a results folder."""
        for name in names:
            (folder / name).unlink(missing_ok=True)
        if self._bucket:
            below = folder.relative_to(self.root).as_posix()
            self._bucket.remove([f"{below}/{name}" for name in names])

    def recall(self, folder: Path) -> None:
        """Download the files of a results folder that this host does not have."""
        if self._bucket:
            name = folder.relative_to(self.root).as_posix()
            missing = [n for n in self._bucket.names(name) if not (folder / n).exists()]
            self._bucket.download((f"{name}/{each}", folder / each) for each in missing)
