"""The outbox: a run's messages to MLflow, kept on disk until MLflow has them.

    <store>/outbox/<key>-<time>.jsonl    a head, then a line for each message and each one sent

One process at a time holds a file (the system releases it when the process dies). It is only
appended to, and removed when all of it is sent. It refers to files and journals in the store
without copying them, and never contains a password.
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
    """The destination of an outbox.

    Attributes:
        uri: the tracking URI without password.
        where: the setting that it came from.
        experiment, name, key: those of the tracked run.
    """

    uri: str
    where: str
    experiment: str
    name: str
    key: str


@dataclass(frozen=True, slots=True)
class Told:
    """A message.

    Attributes:
        number: its line in the outbox; None if it could not be written to disk.
        place: keys of the run that it is about.
        what: its kind, which determines the fields of `values`.
    """

    number: int | None
    place: tuple[str, ...]
    what: str
    values: dict[str, Any]


def left(store: Path) -> list[Path]:
    """Return the outboxes in a store, oldest first, held or not."""
    found = (store / FOLDER).glob("*.jsonl")
    return sorted(found, key=lambda path: path.stem.rpartition("-")[2])


class Outbox:
    """A file of a run's messages, held by this process.

    Attributes:
        path: the file.
        head: its destination.
        waiting: messages that were unsent when the file was opened, in order. An `open` that was
            sent stays as a `known`, since later messages are about that run; its `ended` says
            whether the run's end was sent too.
        whole: False once a message could not be written to disk.
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
        """Take the outbox that an earlier process left with this head, or make a new one.

        Raises:
            OSError: none can be made.
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
        # Locked before it gets the name that others look for.
        fresh = path.with_suffix(f".{os.getpid()}.tmp")
        descriptor = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        fields = {name: getattr(head, name) for name in Head.__slots__}
        os.write(descriptor, _line({"version": VERSION, **fields}))
        fresh.rename(path)
        return cls(path, descriptor, head)

    @classmethod
    def take(cls, path: Path) -> Self | None:
        """Take an existing outbox; None if a living process holds it, or if it is gone.

        Raises:
            UserError: it is not an outbox, or another version wrote it.
        """
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The process that held it may have sent and removed it in the meantime.
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
        """Keep a message that is to be sent."""
        number = self._append({"run": place, "what": what, **values})
        return Told(number, place, what, values)

    def tell_again(self, place: tuple[str, ...]) -> list[Told]:
        """Return all messages of a run since the file was begun, to be sent again because MLflow
        has lost the run."""
        self._append({"run": place, "what": _AGAIN})
        with self._lock:
            if self._file < 0:
                return []
            lines = _whole_lines(self._file)
        return [
            told for told in self._rows(lines) if isinstance(told, Told) and told.place == place
        ]

    def sent(self, told: Told) -> None:
        """Note that MLflow has a message, or will never accept it."""
        if told.number is not None:
            self._append({"sent": told.number})

    def close(self, *, done: bool = False) -> None:
        """Release the file; if all of it is sent (`done`), remove it."""
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
        """Write a line, whole or not at all, and return its number."""
        line = _line(row)
        with self._lock:
            if self._file < 0:
                return None
            size = os.fstat(self._file).st_size
            try:
                if os.write(self._file, line) != len(line):
                    raise OSError("the disk is full")
            except OSError as error:
                # Tracking never stops the work: warn, and keep the message in memory.
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
                # MLflow had lost the run: nothing sent before counts.
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
        """Yield the lines after the head: a message, the number of one that was sent, or the place
        of a run whose messages are all to be sent again."""
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
    """Return the lines of a file, after removing a truncated last one."""
    with open(os.dup(descriptor), "rb") as file:  # noqa: PTH123
        file.seek(0)
        text = file.read()
    whole = text[: text.rfind(b"\n") + 1]
    if whole and len(whole) < len(text):
        os.ftruncate(descriptor, len(whole))
    return whole.splitlines()


def in_words(job: Told) -> str:
    """Describe a message to the user."""
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
