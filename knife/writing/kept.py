"""The answers of a model, kept as they come: a line each, in a file for each process that asks.

A kill leaves at most one unfinished line, the last of a file, which is not read.
"""

import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
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
        for path in sorted(folder.glob("*.jsonl")):
            for answer in _read(path):
                self._take(answer)

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


def _read(path: Path) -> Iterator[Answer]:
    """Yield the answers of a file."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                values = json.loads(line)
                if not isinstance(values, Mapping):
                    raise ValueError
                yield Answer.parse(values)
            except (ValueError, TypeError):
                raise UserError(
                    f"{path}:{number}: is damaged: no answer of a model; remove the line, and its "
                    "question is asked again"
                ) from None
