"""What a running stage stores in a bucket: its journal, and the checkpoints of a training.

    work/<kind>-<key>/<try>/...                   the files, named as in the work folder
    work/<kind>-<key>/<try>/part-<step>-<rank>    written once those of a host are there

A host has only the files of its own workers, so the first worker of each host copies for all of
them. A checkpoint counts once every host's part is there. Each try has a separate folder, so that
files of two tries are never mixed in one checkpoint.
"""

import json
import logging
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from knife.core import strict_json
from knife.core.background import background
from knife.core.errors import UserError
from knife.store.bucket import Bucket, new_attempt
from knife.store.checksums import digest
from knife.store.store import Store
from knife.train.context import Context, broadcast, gather
from knife.train.journal import NAME as JOURNAL

log = logging.getLogger(__name__)

_PART = re.compile(r"(?P<attempt>\w+)/part-(?P<step>\d+)-(?P<rank>\d+)")
# If the newest checkpoint is damaged, the one before it is used.
KEPT = 2
_JOURNAL_SECONDS = 3.0


def host_leaders(folder: Path) -> list[int]:
    """Return, for each rank, the first rank with the same work folder; all ranks must call it."""
    machine = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    disk = folder.stat()
    disks = gather((machine, disk.st_dev, disk.st_ino))
    return [disks.index(disk) for disk in disks]


class Mirror:
    """The bucket's copy of a training's checkpoints; all ranks must create it together.

    Attributes:
        leader: the rank that copies for this one.
    """

    def __init__(self, store: Store, kind: str, key: str, context: Context) -> None:
        self._bucket = Bucket(store.address)
        self._work = store.work(kind, key)
        self._prefix = f"work/{kind}-{key}"
        self._journal = f"journals/{kind}-{key}.jsonl"
        self._rank = context.rank
        leaders = host_leaders(self._work)
        self.leader = leaders[context.rank]
        self.leaders = sorted(set(leaders))
        self._attempt: str = broadcast(new_attempt())
        self._there: set[str] = set()

    def upload(self, step: int, values: dict[str, Any], best_step: int) -> None:
        """Copy this host's files of a checkpoint, which `values` lists with their checksums.

        Raises:
            OSError, UserError: as the bucket raises them; the checkpoint does not count then.
        """
        names = [name for name in values["files"] if name not in self._there]
        prefix = f"{self._prefix}/{self._attempt}"
        self._bucket.upload((self._work / name, f"{prefix}/{name}") for name in names)
        if self._rank == 0:
            self._bucket.upload([(self._work / JOURNAL, self._journal)])
        part = values | {"leaders": self.leaders, "best_step": best_step}
        text = strict_json.dumps(part)
        self._bucket.write(f"{prefix}/part-{step:08d}-{self._rank}", text.encode())
        # Several checkpoints may share a best model.
        self._there |= {name for name in names if name.startswith("best-")}
        if self._rank == 0:
            self._drop_old()

    def _drop_old(self) -> None:
        """Keep this try's newest `KEPT` checkpoints; once they exist, drop those of other tries."""
        names = self._bucket.names(self._prefix)
        whole = [step for attempt, step in self._whole(names) if attempt == self._attempt]
        if len(whole) < KEPT:
            return
        kept = whole[:KEPT]
        best = min(self._part(self._attempt, step, 0)["best_step"] for step in kept)
        old = []
        for name in names:
            attempt, _, inner = name.partition("/")
            own = attempt == self._attempt
            found = re.match(r"(checkpoints/step|part|best)-(\d+)", inner)
            limit = best if found and found[1] == "best" else kept[-1]
            if not own or (found and int(found[2]) < limit):
                old.append(f"{self._prefix}/{name}")
        self._bucket.remove(old)

    def restore(self) -> list[str]:
        """Download the newest complete checkpoint to every host, unless a single host has a newer.

        All ranks must call it; returns a line for each checkpoint that was skipped.
        """
        notes: list[str] = []
        whole, local = broadcast(self._look() if self._rank == 0 else None)
        newest = max((step for _, step in whole), default=0)
        if len(self.leaders) == 1 and local >= newest:
            return notes
        for attempt, step in whole:
            values = broadcast(self._merged(attempt, step) if self._rank == 0 else None)
            whether = self._bring(attempt, step, values) if self._rank == self.leader else True
            if all(gather(whether)):
                return notes
            notes.append(f"checkpoint step-{step:08d} of the bucket is damaged: skipped")
        if self._rank == self.leader:
            self._clear()
        return notes

    def _look(self) -> tuple[list[tuple[str, int]], int]:
        """Return the bucket's checkpoints that count, and the newest complete step of this host."""
        own = [-1]
        for path in self._work.glob("checkpoints/*/place.json"):
            with suppress(ValueError, KeyError):
                values = json.loads(path.read_text())
                own.append(values["place"]["step"] if values["leaders"] == [0] else -1)
        return self._whole(self._bucket.names(self._prefix)), max(own)

    def _whole(self, names: dict[str, int]) -> list[tuple[str, int]]:
        """Return try and step of the checkpoints that count, newest first."""
        parts: dict[tuple[str, int], set[int]] = {}
        for name in names:
            if found := _PART.fullmatch(name):
                checkpoint = (found["attempt"], int(found["step"]))
                parts.setdefault(checkpoint, set()).add(int(found["rank"]))
        return sorted(
            (
                (attempt, step)
                for (attempt, step), ranks in parts.items()
                if 0 in ranks and ranks >= set(self._part(attempt, step, 0)["leaders"])
            ),
            key=lambda checkpoint: -checkpoint[1],
        )

    def _part(self, attempt: str, step: int, rank: int) -> dict[str, Any]:
        content = self._bucket.read(f"{self._prefix}/{attempt}/part-{step:08d}-{rank}")
        part: dict[str, Any] = json.loads(content or b'{"leaders": [-1], "best_step": -1}')
        return part

    def _merged(self, attempt: str, step: int) -> dict[str, Any]:
        """Merge the hosts' parts into what a single host with all files would have written."""
        first = self._part(attempt, step, 0)
        parts = [self._part(attempt, step, rank) for rank in first["leaders"]]
        files = {name: of for part in reversed(parts) for name, of in part["files"].items()}
        return first | {"files": files, "leaders": [0]}

    def _bring(self, attempt: str, step: int, values: dict[str, Any]) -> bool:
        """Download a checkpoint to this host; return whether it is complete and undamaged."""
        self._clear()
        files: dict[str, str] = values["files"]
        try:
            self._bucket.download(
                (f"{self._prefix}/{attempt}/{name}", self._work / name) for name in files
            )
            self._bucket.download([(self._journal, self._work / JOURNAL)])
        except FileNotFoundError:
            return False
        if any(digest(self._work / name) != wanted for name, wanted in files.items()):
            return False
        path = self._work / "checkpoints" / f"step-{step:08d}" / "place.json"
        path.write_text(strict_json.dumps(values))
        return True

    def _clear(self) -> None:
        """Remove what an earlier try left on this host."""
        for folder in (self._work / "checkpoints", *self._work.glob("best-*")):
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def mirrored_journal(store: Store, kind: str, key: str, context: Context) -> Iterator[None]:
    """Copy rank 0's journal into the bucket every few seconds, and once more at the end."""
    if store.shared or context.rank:
        yield
        return
    bucket, path = Bucket(store.address), store.work(kind, key) / JOURNAL
    copied = -1

    def copy() -> None:
        nonlocal copied
        size = path.stat().st_size if path.is_file() else -1
        if size != copied and size >= 0:
            bucket.upload([(path, f"journals/{kind}-{key}.jsonl")])
            copied = size

    def loop(stop: threading.Event) -> None:
        while not stop.wait(_JOURNAL_SECONDS):
            try:
                copy()
            except (OSError, UserError) as error:
                # The next attempt copies all of it.
                log.info("journal of %s %s: %s", kind, key, error)

    with background("knife-journal", loop):
        yield
    copy()
