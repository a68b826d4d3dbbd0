"""A file of questions in parts of whole lines, each of which any host can read separately."""

import codecs
import hashlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from knife.core.errors import UserError, raise_errors
from knife.data.example import Example
from knife.data.formats import decode_lines, refuse_other_than_lines
from knife.data.jsonl import Line, no_examples, parse, repeated
from knife.data.line_errors import LineErrors
from knife.data.record import read_question

# The format of a file is detected from this many bytes.
_HEAD = 1 << 16


@dataclass(frozen=True, slots=True)
class Part:
    """Consecutive lines of a file.

    Attributes:
        first: number of questions before it.
        rows: number of questions in it.
        line: number of its first line, counted from 1.
        offset, size: position and number of its bytes.
        digest: BLAKE2 hash of its bytes, 16 hex digits.
    """

    first: int
    rows: int
    line: int
    offset: int
    size: int
    digest: str


def split(path: Path, rows: int) -> list[Part]:
    """Split a file into parts of `rows` non-blank lines each, with only one part in memory.

    Raises:
        UserError: the file cannot be read, is not plain JSON Lines, or has no lines.
    """
    parts: list[Part] = []
    first, line = 0, 1
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"{path}: must be a file that can be read again, not a folder or pipe")
        with path.open("rb") as file:
            head = file.read(_HEAD)
            refuse_other_than_lines(path, head)
            offset = len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0
            file.seek(offset)
            lines: list[bytes] = []
            count = 0

            def end() -> None:
                nonlocal first, line, offset, count
                data = b"".join(lines)
                parts.append(Part(first, count, line, offset, len(data), _digest(data)))
                first, line, offset, count = first + count, line + len(lines), file.tell(), 0
                lines.clear()

            while text := file.readline():
                lines.append(text)
                count += bool(text.strip())
                if count == rows:
                    end()
            if count:
                end()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    if not parts:
        raise UserError(no_examples(path))
    return parts


def read_part(path: Path, part: Part) -> list[Example]:
    """Read the questions of a part of a valid file; an answer may be `UNANSWERED`.

    Raises:
        UserError: the file has changed since it was split.
    """
    return [line.example for line in _lines(path, part) if line.example is not None]


def refuse_errors(
    path: Path,
    parts: Sequence[Part],
    look: Callable[[list[Example]], list[tuple[Example | None, str]]],
    checked: Callable[[Part], None],
) -> None:
    """Read all questions of a file, part by part, and refuse the file if anything is wrong.

    `look` returns further errors in a part's valid questions, or of the part; `checked` is called
    with each part that has been read. 8 bytes per question are kept in memory to find duplicate
    ids.

    Raises:
        UserError: with every error as `file:line: message`, up to `SHOWN_ERRORS`, and the number
            of further ones.
    """
    errors = LineErrors(path)
    marks = array("Q")
    for part in parts:
        numbers: dict[int, int] = {}
        examples = []
        for line in _lines(path, part):
            errors.add(line.number, line.errors)
            if line.example is not None:
                numbers[id(line.example)] = line.number
                examples.append(line.example)
            if line.identity:
                marks.append(_mark(line.identity))
        for example, error in look(examples):
            number = numbers[id(example)] if example else part.line
            errors.add_text(number, f"{path}:{number}: {error}" if example else f"{path}: {error}")
        checked(part)
    for line, first in _twice(path, parts, marks):
        errors.add(line.number, [repeated(line.identity, first)])
    raise_errors(errors.lines())


def _twice(path: Path, parts: Sequence[Part], marks: "array[int]") -> Iterator[tuple[Line, int]]:
    """Yield each line whose id an earlier line already has, and that line's number."""
    import numpy as np

    values, counts = np.unique(np.frombuffer(marks, dtype=np.uint64), return_counts=True)
    again = set(values[counts > 1].tolist())
    if not again:
        return
    first: dict[str, int] = {}
    for part in parts:
        for line in _lines(path, part):
            if line.identity and _mark(line.identity) in again:
                number = first.setdefault(line.identity, line.number)
                if number != line.number:
                    yield line, number


def _lines(path: Path, part: Part) -> Iterator[Line]:
    """Read the lines of a part as questions."""
    with path.open("rb") as file:
        file.seek(part.offset)
        data = file.read(part.size)
    if _digest(data) != part.digest:
        raise UserError(
            f"{path}: has changed since it was checked, or this host has another file of that name"
        )
    return parse(decode_lines(data.split(b"\n"), part.line), read_question)


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def _mark(identity: str) -> int:
    return int.from_bytes(hashlib.blake2b(identity.encode(), digest_size=8).digest(), "big")
