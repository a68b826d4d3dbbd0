"""The answers of a model, kept as they come: a line each, in a file for each process that asks.

A kill leaves at most one unfinished line, the last of a file, which is not read.
"""

import json
import os
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path

from knife.core.errors import UserError
from knife.writing.answer import Answer
from knife.writing.request import Request


class Kept:
    """The answers in a folder.

    Attributes:
        folder: where their files are.
        answers: those that were read, by the keys of their requests.
        read, written: numbers of tokens of all that ever came, in and out.
    """

    def __init__(self, folder: Path) -> None:
        """Read what there is.

        Raises:
            UserError: a file cannot be read, or a line of it is damaged.
        """
        self.folder = folder
        self.answers: dict[str, Answer] = {}
        self.read = self.written = 0
        # Of each file, how many bytes and lines were read.
        self._places: dict[Path, tuple[int, int]] = {}
        self.read_more()

    def read_more(self) -> None:
        """Read what has come since.

        Raises:
            UserError: a file cannot be read, or a line of it is damaged.
        """
        for path in sorted(self.folder.glob("*.jsonl")):
            offset, number = self._places.get(path, (0, 0))
            with path.open("rb") as file:
                file.seek(offset)
                for line in file:
                    # Not finished yet, or never.
                    if not line.endswith(b"\n"):
                        break
                    offset, number = offset + len(line), number + 1
                    self._take(_parsed(path, number, line))
            self._places[path] = (offset, number)

    def missing(self, requests: Iterable[Request], limit: int) -> list[Request]:
        """Return the requests without an answer, each key once. One that was cut off at fewer
        tokens than `limit` is missing too."""
        found: dict[str, Request] = {}
        for request in requests:
            answer = self.answers.get(request.key)
            if answer is None or (answer.cut and answer.limit < limit):
                found.setdefault(request.key, request)
        return list(found.values())

    def _take(self, answer: Answer) -> None:
        self.read += answer.read
        self.written += answer.written
        before = self.answers.get(answer.key)
        # Of two, the one that was allowed to be longer.
        if before is None or (before.cut and answer.limit >= before.limit):
            self.answers[answer.key] = answer


class Keeper:
    """Writes answers into a file of its own in a folder, each before the next is asked for."""

    def __init__(self, folder: Path) -> None:
        """Begin a file, with the first answer."""
        self._path = folder / f"{uuid.uuid4().hex[:12]}.jsonl"
        self._file: int | None = None

    def keep(self, answers: Iterable[Answer]) -> None:
        """Write answers.

        Raises:
            UserError: the disk is full or not writable.
        """
        data = "".join(f"{answer.line()}\n" for answer in answers).encode()
        try:
            if self._file is None:
                self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND)
            while data:
                data = data[os.write(self._file, data) :]
        except OSError as error:
            raise self._unwritable(error) from error

    def sync(self) -> None:
        """Wait until everything is on disk."""
        if self._file is not None:
            os.fsync(self._file)

    def close(self) -> None:
        """Wait until everything is on disk, and end the file."""
        if self._file is not None:
            os.fsync(self._file)
            os.close(self._file)

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(f"--out: {self._path} cannot be written: {error.strerror}")


def _parsed(path: Path, number: int, line: bytes) -> Answer:
    """Return the answer in a line."""
    try:
        values = json.loads(line)
        if not isinstance(values, Mapping):
            raise ValueError
        return Answer.parse(values)
    except (ValueError, TypeError):
        raise UserError(
            f"{path}:{number}: is damaged: no answer of a model; remove the line, and its "
            "question is asked again"
        ) from None
