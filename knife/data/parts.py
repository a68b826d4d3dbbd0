"""A file of questions in parts, each of whole lines, that can be read by itself on any host."""

import codecs
import hashlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from knife.data.example import Example
from knife.data.jsonl import (
    SHOWN_FAULTS,
    no_examples,
    parse_lines,
    parse_question,
    refuse_utf16,
    stands_already,
)
from knife.errors import UserError, raise_faults


@dataclass(frozen=True, slots=True)
class Part:
    """Some lines of a file that follow each other.

    Attributes:
        first: number of questions before it.
        rows: number of questions in it.
        line: number of its first line, from 1.
        offset, size: where its bytes are.
        digest: 16 hex digits of BLAKE2 over them.
    """

    first: int
    rows: int
    line: int
    offset: int
    size: int
    digest: str


def split(path: Path, rows: int) -> list[Part]:
    """The parts of a file, `rows` lines that are not blank in each; only one is held in memory.

    Raises:
        UserError: the file cannot be read, is UTF-16, or has no lines.
    """
    parts: list[Part] = []
    first, line = 0, 1
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"{path}: must be a file that can be read again, not a folder or pipe")
        with path.open("rb") as file:
            mark = file.read(len(codecs.BOM_UTF8))
            refuse_utf16(path, mark)
            offset = len(mark) if mark == codecs.BOM_UTF8 else 0
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
    """The questions of a part of a file without faults; an answer may be `UNANSWERED`.

    Raises:
        UserError: the file is not what it was when it was split.
    """
    records = parse_lines(_lines(path, part), part.line, parse_question)
    return [example for _, _, example, _ in records if example is not None]


def refuse_faults(
    path: Path,
    parts: Sequence[Part],
    look: Callable[[list[Example]], list[str]],
    checked: Callable[[Part], None],
) -> None:
    """Read all questions of a file, part after part, and refuse what is wrong with them.

    `look` tells what else is wrong with the good ones of a part; `checked` hears of each part that
    has been read. Of each question 8 bytes are kept, for ids that are there twice.

    Raises:
        UserError: with every fault as `file:line: message`, up to `SHOWN_FAULTS` and the number of
            those left unsaid.
    """
    faults: list[tuple[int, str]] = []
    unsaid = 0
    marks = array("Q")
    for part in parts:
        examples, found = [], []
        for number, identity, example, wrong in parse_lines(
            _lines(path, part), part.line, parse_question
        ):
            if example is not None:
                examples.append(example)
            if identity:
                marks.append(_mark(identity))
            found += [(number, f"{path}:{number}: {fault}") for fault in wrong]
        found += [(part.line, fault) for fault in look(examples)]
        room = max(0, SHOWN_FAULTS - len(faults))
        faults += found[:room]
        unsaid += len(found[room:])
        checked(part)
    twice = [(number, f"{path}:{number}: {fault}") for number, fault in _twice(path, parts, marks)]
    said = [fault for _, fault in sorted([*faults, *twice], key=lambda numbered: numbered[0])]
    if len(said) + unsaid > SHOWN_FAULTS:
        unsaid += len(said[SHOWN_FAULTS:])
        said = [*said[:SHOWN_FAULTS], f"… and {unsaid} more"]
    raise_faults(said)


def _twice(path: Path, parts: Sequence[Part], marks: "array[int]") -> Iterator[tuple[int, str]]:
    """Line and fault of each id that stands in an earlier line already."""
    import numpy as np

    values, counts = np.unique(np.frombuffer(marks, dtype=np.uint64), return_counts=True)
    again = set(values[counts > 1].tolist())
    if not again:
        return
    first: dict[str, int] = {}
    for part in parts:
        for number, identity, _, _ in parse_lines(_lines(path, part), part.line, parse_question):
            if identity and _mark(identity) in again:
                line = first.setdefault(identity, number)
                if line != number:
                    yield number, stands_already(identity, line)


def _lines(path: Path, part: Part) -> list[bytes]:
    with path.open("rb") as file:
        file.seek(part.offset)
        data = file.read(part.size)
    if _digest(data) != part.digest:
        raise UserError(
            f"{path}: has changed since it was checked, or this host has another file of that name"
        )
    return data.split(b"\n")


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def _mark(identity: str) -> int:
    return int.from_bytes(hashlib.blake2b(identity.encode(), digest_size=8).digest(), "big")
