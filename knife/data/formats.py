"""From a file's bytes to JSON values: what is read, and what is named as not read.

Read are JSON Lines and JSON (one array, an object that holds one, or objects over several lines),
also compressed with gzip, in UTF-16, with a byte-order mark, and with any line ends.
"""

import codecs
import gzip
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from knife.core import strict_json
from knife.core.errors import UserError
from knife.data.faults import Fault, show
from knife.data.fields import KNOWN
from knife.data.record import FORMAT

# A decoded value, and what is wrong with it; by the number of its line or of the example.
Value = tuple[int, object, list[Fault]]
_GZIP = b"\x1f\x8b"
_BROKEN = "broken JSON"
_NOT_BLANK = re.compile(r"\S")
# Longer marks first: that of UTF-32 begins as one of UTF-16 does.
_WIDE = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_WITH_PANDAS = "convert it, for example with pandas: read_{}(…).to_json(…, orient='records', "
_WITH_PANDAS += "lines=True)"
# By first bytes: what a file is, and what to do.
_FOREIGN = {
    b"PAR1": ("Parquet", _WITH_PANDAS.format("parquet")),
    b"ARROW1": ("an Arrow file", _WITH_PANDAS.format("feather")),
    b"\xff\xff\xff\xff": ("an Arrow stream", "write it with datasets' to_json"),
    b"PK\x03\x04": ("a zip archive or an Excel workbook", "unpack it, or save it as JSON Lines"),
    b"\xd0\xcf\x11\xe0": ("an Excel workbook", _WITH_PANDAS.format("excel")),
    b"BZh": ("compressed with bzip2", "decompress it, or compress it with gzip"),
    b"\xfd7zXZ": ("compressed with xz", "decompress it, or compress it with gzip"),
    b"\x28\xb5\x2f\xfd": ("compressed with zstd", "decompress it, or compress it with gzip"),
    b"7z\xbc\xaf": ("a 7z archive", "unpack it"),
    b"SQLite format 3": ("a SQLite database", "write its rows as JSON Lines"),
    b"\x80": ("a pickle", "write its rows as JSON Lines"),
    b"%PDF": ("a PDF", "write its questions as JSON Lines"),
    b"version https://git-lfs": ("a Git LFS pointer and not the data", "run git lfs pull"),
    b"<": ("HTML or XML", "look whether the download gave a page in place of the data"),
}


@dataclass(frozen=True, slots=True)
class Values:
    """The JSON values of a file.

    Attributes:
        unit: what is counted, `line` or `example`.
        values: the values by number.
    """

    unit: str
    values: Iterator[Value]


def read_values(path: Path) -> Values:
    """The JSON values of a file of any format that is read; blank lines are none.

    Raises:
        UserError: the file cannot be read, or is of a format that is not.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    data = _plain(path, data)
    values = _document(path, data)
    if values is not None:
        return Values("example", ((n, value, []) for n, value in enumerate(values, 1)))
    return Values("line", decode_lines(data.split(b"\n"), 1))


def decode_lines(lines: Iterable[bytes], number: int) -> Iterator[Value]:
    """The JSON value of each line that is not blank; `number` is that of the first line.

    Lines are bytes: text may hold other line separators, and a byte that is not UTF-8 spoils its
    own line alone.
    """
    for at, line in enumerate(lines, start=number):
        if line.strip():
            yield at, *_decode(line)


def refuse_other_than_lines(path: Path, head: bytes) -> None:
    """Refuse a file, by its first bytes, that is not plain JSON Lines in UTF-8.

    Raises:
        UserError: it is not; the message says what it is.
    """
    wanted = f"but must be plain JSON Lines here: one object a line: {FORMAT}"
    if head.startswith(_GZIP):
        raise UserError(f"{path}: is compressed with gzip, {wanted}; decompress it")
    if found := _wide(head):
        raise UserError(f"{path}: is {found.upper()}, {wanted}; save it as UTF-8")
    head = head.removeprefix(codecs.BOM_UTF8)
    _refuse_foreign(path, head)
    if b"\n" not in head and b"\r" in head:
        raise UserError(f"{path}: has line ends of old Macs (\\r), {wanted}; save it with \\n")
    first = head.lstrip().split(b"\n")[0].strip()
    if first.startswith(b"[") or first == b"{":
        raise UserError(f"{path}: is a JSON document over several lines or an array, {wanted}")


def _plain(path: Path, data: bytes) -> bytes:
    """The file's text in UTF-8 with line ends that have a line feed."""
    if data.startswith(_GZIP):
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(f"{path}: is compressed with gzip, but broken: {error}") from error
    if encoding := _wide(data):
        try:
            data = data.decode(encoding).encode()
        except UnicodeError as error:
            raise UserError(f"{path}: is {encoding.upper()}, but broken: {error}") from error
    data = data.removeprefix(codecs.BOM_UTF8)
    _refuse_foreign(path, data)
    return data if b"\n" in data else data.replace(b"\r", b"\n")


def _wide(data: bytes) -> str | None:
    """The encoding of text whose characters take two bytes or more, or None."""
    for mark, encoding in _WIDE.items():
        if data.startswith(mark):
            return encoding
    # Without a mark, what JSON begins with has its zero byte before or behind it.
    if re.match(rb"[\[{\s]\0[^\0]\0", data):
        return "utf-16-le"
    return "utf-16-be" if re.match(rb"\0[\[{\s]\0[^\0]", data) else None


def _refuse_foreign(path: Path, data: bytes) -> None:
    """Refuse data that holds no line of JSON.

    Raises:
        UserError: says what it is.
    """
    wanted = f"but must be JSON Lines, one object a line: {FORMAT}"
    for mark, (name, hint) in _FOREIGN.items():
        if data.startswith(mark):
            raise UserError(f"{path}: is {name}, {wanted}; {hint}")
    if data[257:262] == b"ustar":
        raise UserError(f"{path}: is a tar archive, {wanted}; unpack it")
    if b"\0" in data[:1024]:
        raise UserError(f"{path}: is a binary file, {wanted}")
    if re.search(rb"^\s*[{\[]", data, flags=re.MULTILINE) or not data.strip():
        return
    first = data.strip().splitlines()[0]
    name = "TSV" if b"\t" in first else "CSV" if re.search(rb"[,;]", first) else "plain text"
    hint = f"{_WITH_PANDAS.format('csv')}, where choices must become lists"
    raise UserError(
        f"{path}: is {name} (it begins with {show(first.decode(errors='replace'))}), {wanted}"
        + (f"; {hint}" if name != "plain text" else "")
    )


def _document(path: Path, data: bytes) -> list[object] | None:
    """The values of JSON that is not one object a line; None where it is."""
    lines = [line for line in data.split(b"\n") if line.strip()]
    head, faults = _decode(lines[0]) if lines else (None, [])
    if not lines or (len(lines) > 1 and not faults) or (faults and faults[0].reason != _BROKEN):
        return None
    values = [head]
    if faults:
        try:
            values = _sequence(data.decode())
        except (ValueError, RecursionError) as error:
            # Of lines of their own, each says what is wrong with it.
            if lines[0].strip() != b"{" and not lines[0].lstrip().startswith(b"["):
                return None
            said, number = f": {error}", ""
            if isinstance(error, json.JSONDecodeError):
                said, number = f" at column {error.colno}: {error.msg}", f":{error.lineno}"
            raise UserError(f"{path}{number}: broken JSON{said}") from None
    if len(values) > 1:
        return values
    whole = values[0]
    if isinstance(whole, list):
        return whole
    held = _held(whole)
    # One object in one line is a line.
    return held if held is not None else values if faults else None


def _held(value: object) -> list[object] | None:
    """The only list of objects in an object that is no example itself, such as {"data": [...]}."""
    if not isinstance(value, dict) or value.keys() & set(KNOWN):
        return None
    lists = [
        one
        for one in value.values()
        if isinstance(one, list) and one and all(isinstance(item, dict) for item in one)
    ]
    return lists[0] if len(lists) == 1 else None


def _sequence(text: str) -> list[object]:
    """JSON values with nothing but blanks between them."""
    values = []
    at = _next(text, 0)
    while at < len(text):
        value, end = _DECODER.raw_decode(text, at)
        values.append(value)
        at = _next(text, end)
    return values


def _next(text: str, at: int) -> int:
    """The place of the first character from `at` on that is not blank."""
    found = _NOT_BLANK.search(text, at)
    return found.start() if found else len(text)


class _RepeatedFieldError(ValueError):
    """A JSON object has a field twice; which of the two counts, nobody can tell."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _RepeatedFieldError(f"the field {show(twice)} is there twice; leave one out")
    return found


_DECODER = strict_json.decoder(object_pairs_hook=_unique)


def _decode(line: bytes) -> tuple[object, list[Fault]]:
    """The JSON value of a line, or None and what is wrong with the line."""
    try:
        return _DECODER.decode(line.decode()), []
    except UnicodeDecodeError as error:
        bad = line[error.start]
        said = f"not UTF-8: byte 0x{bad:02x} at byte {error.start + 1} of the line"
        return None, [Fault(f"{said}; save the file as UTF-8", "text that is not UTF-8", once=True)]
    except _RepeatedFieldError as error:
        return None, [Fault(str(error), "a repeated field", once=True)]
    except json.JSONDecodeError as error:
        said = f"broken JSON at column {error.colno}: {error.msg}"
        return None, [Fault(said, _BROKEN, once=True)]
    except (ValueError, RecursionError) as error:
        return None, [Fault(f"broken JSON: {error}", f"{error}", once=True)]
