"""The outbox: what a run tells MLflow, on disk until MLflow has it.

    <store>/outbox/<key>-<time>.jsonl    a head, then a line for each thing told and each one sent

One process at a time holds a file (the system lets go of it when the process dies). It is only
appended to, and removed when all of it is sent. It names files and journals of the store and
does not copy them, and it never holds a password.
"""

import fcntl
import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from knife.core import strict_json
from knife.core.errors import UserError

log = logging.getLogger("knife.track")

FOLDER = "outbox"
VERSION = 1
_AGAIN = "again"


@dataclass(frozen=True, slots=True)
class Head:
    """Where all of an outbox goes.

    Attributes:
        uri: the tracking uri without password.
        where: the setting that it came from.
        experiment, name, key: of the tracked run.
    """

    uri: str
    where: str
    experiment: str
    name: str
    key: str


@dataclass(frozen=True, slots=True)
class Told:
    """One thing told.

    Attributes:
        number: its line in the outbox; None where the disk did not take it.
        place: keys of the run that it is about.
        what: its kind, and `values` as that kind has them.
    """

    number: int | None
    place: tuple[str, ...]
    what: str
    values: dict[str, Any]


def left(store: Path) -> list[Path]:
    """The outboxes that lie in a store, oldest first, held or not."""
    found = (store / FOLDER).glob("*.jsonl")
    return sorted(found, key=lambda path: path.stem.rpartition("-")[2])


class Outbox:
    """A file of a run's messages, held by this process.

    Attributes:
        path: the file.
        head: where it goes.
        waiting: what was told and not sent when the file was opened, in order. An `open` that
            was sent stays as a `known`: what comes later is about that run, and `ended` says
            whether its end was sent too.
        whole: False once the disk has refused something.
    """

    def __init__(self, path: Path, descriptor: int, head: Head) -> None:
        self.path = path
        self.head = head
        self.waiting: list[Told] = []
        self.whole = True
        self._file = descriptor
        self._lines = 1
        self._lock = threading.Lock()

    @classmethod
    def open(cls, store: Path, head: Head) -> Self:
        """The outbox that an earlier process has left with this head, or a new one.

        Raises:
            OSError: where none can be made.
        """
        for path in left(store):
            if path.stem.rpartition("-")[0] != head.key:
                continue
            try:
                found = cls.take(path)
            except UserError as error:
                log.warning("%s", error)
                continue
            if found and found.head == head:
                return found
            if found:
                found.close()
        if "/" in head.key:
            raise ValueError(f"the key of a run must be the name of a file: {head.key!r}")
        path = store / FOLDER / f"{head.key}-{time.time_ns()}.jsonl"
        path.parent.mkdir(exist_ok=True)
        # Held before it has a name that others look for.
        fresh = path.with_suffix(f".{os.getpid()}.tmp")
        descriptor = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        fields = {name: getattr(head, name) for name in Head.__slots__}
        os.write(descriptor, _line({"version": VERSION, **fields}))
        fresh.rename(path)
        return cls(path, descriptor, head)

    @classmethod
    def take(cls, path: Path) -> Self | None:
        """A left outbox; None where a living process holds it, or it is gone.

        Raises:
            UserError: where it is none, or another version's.
        """
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held it may have sent and removed it in between.
            if not path.exists() or not os.path.samestat(os.fstat(descriptor), path.stat()):
                raise BlockingIOError
            lines = _whole_lines(descriptor)
            fields = json.loads(lines[0])
            if fields.pop("version") != VERSION:
                raise ValueError("another version of this package wrote it")
            box = cls(path, descriptor, Head(**fields))
        except BlockingIOError:
            os.close(descriptor)
            return None
        except (ValueError, TypeError, KeyError, IndexError) as error:
            os.close(descriptor)
            raise UserError(
                f"{path}: is no outbox that can be read ({error}); it is left alone, and may be "
                "moved away where it is not wanted"
            ) from error
        box._read(lines)
        return box

    def tell(self, place: tuple[str, ...], what: str, values: dict[str, Any]) -> Told:
        """Keep something that is to be sent."""
        number = self._append({"run": place, "what": what, **values})
        return Told(number, place, what, values)

    def tell_again(self, place: tuple[str, ...]) -> list[Told]:
        """All that was told of a run since the file was begun, which is to be sent anew: MLflow no
        longer has the run."""
        self._append({"run": place, "what": _AGAIN})
        with self._lock:
            if self._file < 0:
                return []
            lines = _whole_lines(self._file)
        return [
            told for told in self._rows(lines) if isinstance(told, Told) and told.place == place
        ]

    def sent(self, told: Told) -> None:
        """Note that MLflow has it, or will never take it."""
        if told.number is not None:
            self._append({"sent": told.number})

    def close(self, *, done: bool = False) -> None:
        """Let go of the file; where all of it is sent, remove it."""
        with self._lock:
            if self._file < 0:
                return
            if done:
                self.path.unlink(missing_ok=True)
            else:
                os.fsync(self._file)
            os.close(self._file)
            self._file = -1

    def _append(self, row: dict[str, Any]) -> int | None:
        """Write a line, whole or not at all; its number."""
        line = _line(row)
        with self._lock:
            if self._file < 0:
                return None
            size = os.fstat(self._file).st_size
            try:
                if os.write(self._file, line) != len(line):
                    raise OSError("the disk is full")
            except OSError as error:
                # Tracking never stops the work: it is kept in memory, and this is said.
                with suppress(OSError):
                    os.ftruncate(self._file, size)
                if self.whole:
                    log.warning("%s cannot be written: %s", self.path, error)
                self.whole = False
                return None
            self._lines += 1
            return self._lines - 1

    def _read(self, lines: list[bytes]) -> None:
        every: dict[int, Told] = {}
        told: dict[int, Told] = {}
        known: dict[tuple[str, ...], Told] = {}
        for row in self._rows(lines):
            if isinstance(row, tuple):
                # MLflow had lost the run: nothing that was sent of it counts.
                known.pop(row, None)
                told |= {number: old for number, old in every.items() if old.place == row}
            elif isinstance(row, Told):
                assert row.number is not None
                every[row.number] = told[row.number] = row
            else:
                old = told.pop(row, None)
                if old and old.what == "open":
                    values = old.values | {"ended": False}
                    told[row] = known[old.place] = Told(None, old.place, "known", values)
                elif old and old.what == "finish" and old.place in known:
                    known[old.place].values["ended"] = True
        self.waiting = [told[number] for number in sorted(told)]
        self._lines = len(lines)

    def _rows(self, lines: list[bytes]) -> Iterator[Told | int | tuple[str, ...]]:
        """The lines behind the head: what was told; the number of one that was sent; a run of which
        all is to be sent anew."""
        for number, line in enumerate(lines[1:], start=1):
            try:
                row = json.loads(line)
                if "sent" in row:
                    yield int(row["sent"])
                    continue
                place, what = tuple(row.pop("run")), row.pop("what")
                yield place if what == _AGAIN else Told(number, place, what, row)
            except (ValueError, TypeError, KeyError, AttributeError):
                log.warning("%s:%d is damaged and left out", self.path, number + 1)


def _line(row: dict[str, Any]) -> bytes:
    return strict_json.dumps(row, ensure_ascii=False).encode() + b"\n"


def _whole_lines(descriptor: int) -> list[bytes]:
    """The lines of a file, after a last one that was cut in the middle is taken away."""
    with open(os.dup(descriptor), "rb") as file:  # noqa: PTH123
        file.seek(0)
        text = file.read()
    whole = text[: text.rfind(b"\n") + 1]
    if whole and len(whole) < len(text):
        os.ftruncate(descriptor, len(whole))
    return whole.splitlines()


def in_words(job: Told) -> str:
    """What a user calls it."""
    match job.what:
        case "describe":
            return "params and tags"
        case "summary":
            return "the summary"
        case "inputs":
            return "data sets"
        case "artifact":
            return f"artifact {Path(job.values['path']).name}"
        case "text":
            return f"artifact {job.values['name']}"
        case "model":
            return f"model {job.values['name']}"
        case "register":
            return f"registered model {job.values['registered']}"
        case "strays":
            return "ends of nested runs"
    return job.what
