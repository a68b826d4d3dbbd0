"""Opens tables as rows: CSV, TSV, Parquet and Arrow files, by the library `datasets`."""

import csv
import glob
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from knife.core.errors import UserError
from knife.data.line_errors import LineError

Row = Mapping[str, Any]
# By suffix: the library's name of the format, and the delimiter if that is text.
_FORMATS = {
    ".csv": ("csv", ","),
    ".tsv": ("csv", "\t"),
    ".parquet": ("parquet", ""),
    ".arrow": ("arrow", ""),
    ".feather": ("arrow", ""),
}
_DELIMITERS = ",;\t|"


@dataclass(frozen=True, slots=True)
class Table:
    """A table.

    Attributes:
        names: its columns.
        rows: its rows, which can be read repeatedly.
        classes: the class names of columns that hold numbers of classes.
        notes: what a user should know about it.
        broken: why rows, by number, cannot be read; they are empty in `rows`.
    """

    names: list[str]
    rows: Iterable[Row]
    classes: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    broken: dict[int, list[LineError]] = field(default_factory=dict)


def is_table(path: Path) -> bool:
    """Whether a file is a table, by its name."""
    return path.suffix.lower() in _FORMATS


def read_table(path: Path, *more: Path) -> Table:
    """Open a file, or several of one format and with the same columns, as a table. Its rows stay on
    disk; those of text formats are converted once, into the cache of `datasets`.

    Raises:
        UserError: a file cannot be read, is damaged, or has no rows or other columns.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    kind, delimiter = _FORMATS[path.suffix.lower()]
    notes: list[str] = []
    options: dict[str, Any] = {}
    if kind == "csv":
        names, found = _header(path, delimiter)
        for other in more:
            if _header(other, delimiter) != (names, found):
                raise UserError(f"{other}:1: must have the columns of {path.name}, in their order")
        if found != delimiter:
            notes.append(f"{path}: its columns are separated by {found!r}")
        # Everything is text: otherwise 007 would become 7, and the choice None a missing value.
        options = {"sep": found, "keep_default_na": False, "features": _texts(names)}
    import datasets

    with _readable(path):
        # The names are not patterns.
        files = [glob.escape(str(each)) for each in (path, *more)]
        found_rows = datasets.load_dataset(kind, data_files=files, split="train", **options)
        if kind == "csv":
            notes += _swallowed(path, found_rows, len(names), found)
        return table_of(found_rows, notes)


def table_of(rows: Any, notes: list[str] | None = None) -> Table:
    """Return a `datasets.Dataset` as a table."""
    classes = {
        name: list(feature.names)
        for name, feature in rows.features.items()
        if getattr(feature, "names", None)
    }
    return Table(list(rows.column_names), rows, classes, notes or [])


def _header(path: Path, delimiter: str) -> tuple[list[str], str]:
    """Return the column names of a text file, and what separates them.

    Raises:
        UserError: there are no names, one is there twice, or the first row has more fields.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            line = file.readline()
            if delimiter not in line:
                delimiter = next((other for other in _DELIMITERS if other in line), delimiter)
            names = next(csv.reader([line], delimiter=delimiter), [])
            first = next(filter(None, csv.reader(file, delimiter=delimiter)), None)
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8; save the file as UTF-8") from None
    except csv.Error as error:
        raise UserError(f"{path}: cannot be read as {path.suffix[1:]}: {error}") from error
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{path}:1: the column {twice[0]!r} is there twice; rename one")
    unnamed = [number for number, name in enumerate(names, 1) if not name.strip()]
    if unnamed or not names:
        which = f", and column {unnamed[0]} has none" if unnamed else ""
        hint = " (pandas leaves out its own with index=False)" if unnamed == [1] else ""
        raise UserError(
            f"{path}:1: must have the names of the columns{which}: name it, or remove it{hint}; "
            f"got {line.strip()[:80]!r}"
        )
    if first is None:
        raise UserError(f"{path}: has no rows below the names of its columns")
    if len(first) > len(names):
        # The library would take the first column for names of rows, and shift all others.
        raise UserError(
            f"{path}:2: has {len(first)} fields, but there are {len(names)} columns; fields with "
            f"{delimiter!r} in them must be in quotation marks"
        )
    return names, delimiter


def _swallowed(path: Path, rows: Any, columns: int, delimiter: str) -> list[str]:
    """Return a note if a field holds what looks like a whole row: a quotation mark that begins a
    field, and that nothing ends, takes all up to the next one into it."""
    # With two columns, a delimiter in a line may be a comma of its text.
    for number, row in enumerate(rows if columns > 2 else [], 1):
        for value in row.values():
            lines = value.split("\n")[1:] if value else []
            if any(line.count(delimiter) >= columns - 1 for line in lines):
                return [
                    f"{path}: row {number} has a field that holds a whole row; where a quotation "
                    "mark begins a field and is part of the text, write two"
                ]
    return []


def _texts(names: list[str]) -> Any:
    import datasets

    return datasets.Features({name: datasets.Value("string") for name in names})


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn errors of the library, which come from several others, into one line; it draws no
    progress of its own."""
    import datasets

    log, drawn = logging.getLogger("datasets"), not datasets.are_progress_bars_disabled()
    level = log.level
    log.setLevel(logging.CRITICAL)
    datasets.disable_progress_bars()
    try:
        yield
    except Exception as error:
        cause: BaseException = error
        while cause.__cause__ or cause.__context__:
            cause = cause.__cause__ or cause.__context__ or cause
        said = " ".join(str(cause).split()).removeprefix("Error tokenizing data. C error: ")
        raise UserError(f"{path}: cannot be read as {path.suffix[1:]}: {said}") from error
    finally:
        log.setLevel(level)
        if drawn:
            datasets.enable_progress_bars()
