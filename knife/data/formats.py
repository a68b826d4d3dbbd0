"""From a file's bytes to JSON values; other formats are recognised and rejected by name.

Reads JSON Lines and JSON (one array, an object that holds one, or objects over several lines),
also compressed with gzip, in UTF-16, with a byte-order mark, and with any line endings.
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
from knife.data.fields import KNOWN
from knife.data.line_errors import LineError, show
from knife.data.record import FORMAT

# The number of a line or example, its decoded value, and its errors.
Value = tuple[int, object, list[LineError]]
# The format of a file is found out from about this many bytes.
_HEAD = 1 << 16
_GZIP = b"\x1f\x8b"
_BROKEN = "broken JSON"
_NOT_BLANK = re.compile(r"\S")
# Longer marks first: the mark of UTF-32 starts with one of UTF-16.
_WIDE = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_WITH_PANDAS = "convert it, for example with pandas: read_{}(…).to_json(…, orient='records', "
_WITH_PANDAS += "lines=True)"
# By first bytes: the format of a file, and what to do.
_FOREIGN = {
    b"PAR1": ("Parquet", "give it a name that ends in .parquet"),
    b"ARROW1": ("an Arrow file", "give it a name that ends in .arrow"),
    b"\xff\xff\xff\xff": ("an Arrow stream", "give it a name that ends in .arrow"),
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
    b"<": ("HTML or XML", "check whether the download returned a web page instead of the data"),
}


@dataclass(frozen=True, slots=True)
class Values:
    """The JSON values of a file.

    Attributes:
        unit: what the numbers count, `line` or `example`.
        values: the numbered values.
    """

    unit: str
    values: Iterator[Value]


def read_values(path: Path) -> Values:
    """Read the JSON values of a file in any supported format, skipping blank lines.

    Raises:
        UserError: the file cannot be read, or its format is not supported.
    """
    try:
        if _is_plain_lines(path):
            return Values("line", decode_lines(_lines(path), 1))
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


def _is_plain_lines(path: Path) -> bool:
    """Whether a file certainly is plain JSON Lines, so that it need not be in memory as a whole: it
    begins with two lines, and the first is an object."""
    # Something else, such as a pipe, can be read only once.
    if not path.is_file():
        return False
    with path.open("rb") as file:
        lines = [line for line in file.readlines(_HEAD) if line.strip()]
    if len(lines) < 2 or not lines[1].endswith(b"\n") or b"\0" in b"".join(lines):
        return False
    value, errors = _decode(lines[0].removeprefix(codecs.BOM_UTF8))
    return isinstance(value, dict) and not errors


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file):
                text = line.removesuffix(b"\n")
                yield text if number else text.removeprefix(codecs.BOM_UTF8)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


def decode_lines(lines: Iterable[bytes], number: int) -> Iterator[Value]:
    """Decode each line that is not blank; `number` is that of the first line.

    Lines are bytes: text may contain other line separators, and a byte that is not UTF-8 spoils
    only its own line.
    """
    for at, line in enumerate(lines, start=number):
        if line.strip():
            yield at, *_decode(line)


def refuse_other_than_lines(path: Path, head: bytes) -> None:
    """Reject a file that is not plain JSON Lines in UTF-8, by its first bytes.

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
        raise UserError(f"{path}: has old Mac line endings (\\r), {wanted}; save it with \\n")
    first = head.lstrip().split(b"\n")[0].strip()
    if first.startswith(b"[") or first == b"{":
        raise UserError(f"{path}: is a JSON document over several lines or an array, {wanted}")


def _plain(path: Path, data: bytes) -> bytes:
    """Return the file's text in UTF-8, with line endings that contain a line feed."""
    if data.startswith(_GZIP):
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(f"{path}: is compressed with gzip, but corrupt: {error}") from error
    if encoding := _wide(data):
        try:
            data = data.decode(encoding).encode()
        except UnicodeError as error:
            raise UserError(f"{path}: is {encoding.upper()}, but corrupt: {error}") from error
    data = data.removeprefix(codecs.BOM_UTF8)
    _refuse_foreign(path, data)
    return data if b"\n" in data else data.replace(b"\r", b"\n")


def _wide(data: bytes) -> str | None:
    """Return the encoding of text in UTF-16 or UTF-32, or None."""
    for mark, encoding in _WIDE.items():
        if data.startswith(mark):
            return encoding
    # Without a mark, the first character of JSON has a zero byte before or after it.
    if re.match(rb"[\[{\s]\0[^\0]\0", data):
        return "utf-16-le"
    return "utf-16-be" if re.match(rb"\0[\[{\s]\0[^\0]", data) else None


def _refuse_foreign(path: Path, data: bytes) -> None:
    """Reject data without a line that starts like JSON.

    Raises:
        UserError: the message says what it is.
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
    hint = f"{'decompress it and ' * (path.suffix == '.gz')}give it a name in .{name.lower()}"
    raise UserError(
        f"{path}: is {name} (it begins with {show(first.decode(errors='replace'))}), {wanted}"
        + (f"; {hint}" if name != "plain text" else "")
    )


def _document(path: Path, data: bytes) -> list[object] | None:
    """Return the values of JSON that is not JSON Lines, or None if it is."""
    lines = [line for line in data.split(b"\n") if line.strip()]
    head, errors = _decode(lines[0]) if lines else (None, [])
    if not lines or (len(lines) > 1 and not errors) or (errors and errors[0].reason != _BROKEN):
        return None
    values = [head]
    if errors:
        try:
            values = _sequence(data.decode())
        except (ValueError, RecursionError) as error:
            # In JSON Lines, each line reports its own errors.
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
    # One object on one line is JSON Lines.
    return held if held is not None else values if errors else None


def _held(value: object) -> list[object] | None:
    """Return the only list of objects in an object that is not an example: {"data": [...]}."""
    if not isinstance(value, dict) or value.keys() & set(KNOWN):
        return None
    lists = [
        one
        for one in value.values()
        if isinstance(one, list) and one and all(isinstance(item, dict) for item in one)
    ]
    return lists[0] if len(lists) == 1 else None


def _sequence(text: str) -> list[object]:
    """Decode JSON values that are separated by whitespace only."""
    values = []
    at = _next(text, 0)
    while at < len(text):
        value, end = _DECODER.raw_decode(text, at)
        values.append(value)
        at = _next(text, end)
    return values


def _next(text: str, at: int) -> int:
    """Return the position of the first non-blank character from `at` on."""
    found = _NOT_BLANK.search(text, at)
    return found.start() if found else len(text)


class _RepeatedFieldError(ValueError):
    """A JSON object has a field twice, and it is unclear which of the two counts."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _RepeatedFieldError(f"the field {show(twice)} is given twice; remove one")
    return found


_DECODER = strict_json.decoder(object_pairs_hook=_unique)


def _decode(line: bytes) -> tuple[object, list[LineError]]:
    """Return the JSON value of a line, or None and the errors in the line."""
    try:
        return _DECODER.decode(line.decode()), []
    except UnicodeDecodeError as error:
        bad = line[error.start]
        said = f"not UTF-8: byte 0x{bad:02x} at byte {error.start + 1} of the line"
        return None, [
            LineError(f"{said}; save the file as UTF-8", "text that is not UTF-8", once=True)
        ]
    except _RepeatedFieldError as error:
        return None, [LineError(str(error), "a repeated field", once=True)]
    except json.JSONDecodeError as error:
        said = f"broken JSON at column {error.colno}: {error.msg}"
        return None, [LineError(said, _BROKEN, once=True)]
    except (ValueError, RecursionError) as error:
        return None, [LineError(f"broken JSON: {error}", f"{error}", once=True)]
