"""Reads files of examples, reporting all errors in a file at once and noting what is not read."""

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from knife.config.columns import Columns
from knife.core import strict_json
from knife.core.errors import raise_errors
from knife.data.example import Example
from knife.data.examples import Builder, Examples
from knife.data.formats import Value, Values, read_values
from knife.data.left_out import LeftOut
from knife.data.line_errors import LineError, LineErrors, show, where
from knife.data.record import FORMAT, read_example, read_identity
from knife.data.survey import Survey
from knife.data.tables.columns import cut_errors, map_table, mapping_notes
from knife.data.tables.table import Table, is_table, read_table

FOLDER_FORMAT = (
    "a folder with train.jsonl and, optionally, dev.jsonl and test.jsonl, which have lines such "
    f"as {FORMAT}"
)
Read = Callable[[object], tuple[Example | None, list[LineError]]]


@dataclass(frozen=True, slots=True)
class Line:
    """One line (or value) of a file.

    Attributes:
        number: its number, from 1.
        identity: its id; "" if an error prevents reading it.
        example: None if the line has errors.
        errors: what is wrong with it.
        record: its decoded value.
    """

    number: int
    identity: str
    example: Example | None
    errors: list[LineError]
    record: object


@dataclass(frozen=True, slots=True)
class ExampleFile:
    """The examples of a file, in order.

    Attributes:
        examples: the examples.
        notes: what a user should know about the file.
        columns: the columns of a table, with what was guessed; None if it is none.
    """

    examples: Examples
    notes: list[str] = field(default_factory=list)
    columns: Columns | None = None


def read_examples(path: Path) -> list[Example]:
    """Read the examples of a file, without the notes; see `read_file`."""
    return list(read_file(path).examples)


def read_file(
    path: Path,
    columns: Columns | None = None,
    faulty: float | None = None,
    prefix: str = "",
    shards: Sequence[Path] = (),
    cut: str | None = None,
) -> ExampleFile:
    """Read one file of examples: JSON in a format listed in `knife.data.formats`, or a table.

    An object has `id` (text or integer, kept as text), `question`, `choices`, `answer` (one of the
    choices, or its index from 0) and, optionally, `rationale` and `group`. Without `choices` it is
    an open question and its answer is text. Other fields are ignored, with a note; one that seems
    to be a misnamed field is an error. An empty rationale counts as none. The columns of a table,
    or with `columns` of any file, are mapped to these fields; ids that are made start with
    `prefix`.

    With `faulty`, rows with errors are left out, up to that share, and counted in a note. `shards`
    are further files of the same table. `cut` is the column of the question that may be cut.

    Raises:
        UserError: with the errors in the file as `file:line: message`, up to `SHOWN_ERRORS` and
            the number of those omitted; or if the file cannot be read.
    """
    if columns or is_table(path):
        table = as_table(path, *shards)
        return read_rows(table, columns, str(path), faulty, prefix, cut=cut)
    raise_errors(cut_errors(cut, ["question"], path))
    return ExampleFile(*_examples(read_values(path), path, faulty))


def read_rows(
    table: Table,
    columns: Columns | None,
    place: str,
    faulty: float | None = None,
    prefix: str = "",
    taken: Mapping[str, str] | None = None,
    cut: str | None = None,
) -> ExampleFile:
    """Read the examples of a table; see `read_file`. `place` says where it is, and `taken` which
    split has an id already.

    Raises:
        UserError: with everything wrong with its columns, or else with its rows.
    """
    mapping, notes = map_table(table, columns, place, cut)
    mapping.prefix = prefix
    values, named = Values("row", mapping.values()), bool(mapping.columns.id)
    parts = mapping.parts if cut else None
    examples, more = _examples(values, place, faulty, named=named, taken=taken, parts=parts)
    notes = [*table.notes, *notes, *more, *mapping_notes(mapping, place)]
    return ExampleFile(examples, notes, mapping.columns)


def _examples(
    values: Values,
    place: Path | str,
    faulty: float | None,
    *,
    named: bool = True,
    taken: Mapping[str, str] | None = None,
    parts: dict[int, tuple[int, int]] | None = None,
) -> tuple[Examples, list[str]]:
    """Return the examples among values, and notes on them and on what was left out. `named` is
    whether their ids are the user's own, `taken` which split has an id already, and `parts` where
    the part is that may be cut, by number: each is removed once it is read."""
    examples = Builder()
    errors, left_out = LineErrors(place, values.unit), LeftOut(values.unit)
    survey, taken = Survey(), taken or {}
    ends = array("q")
    first_line: dict[str, int] = {}
    first_kind: dict[bool, int] = {}
    for line in parse(values.values, read_example):
        wrong = line.errors
        part = parts.pop(line.number, (0, 0)) if parts is not None else ()
        if line.identity:
            first = first_line.setdefault(line.identity, line.number)
            if first != line.number:
                wrong = [*wrong, repeated(line.identity, first, values.unit)]
            elif other := taken.get(line.identity):
                said = f"id: {show(line.identity)} is also in {other}"
                wrong = [*wrong, LineError(said, f"an id that is also in {other}")]
        if wrong:
            errors.add(line.number, wrong)
            left_out.add(line.number, line.identity if named else "", wrong[0].reason)
        elif line.example is not None:
            examples.add(line.example)
            ends.extend(part)
            survey.see(line.record, line.example)
            first_kind.setdefault(line.example.open, line.number)
    found, notes = errors.lines(), list[str]()
    kept = len(examples)
    if found and faulty and not kept:
        found = [f"{place}: {left_out.note(kept)}"]
    elif found and faulty and left_out.total <= faulty * (left_out.total + kept):
        found, notes = [], [f"{place}: {left_out.note(kept)}"]
    elif found and faulty:
        found.insert(0, f"{place}: {left_out.too_many(kept, faulty)}")
    if not kept and not found:
        found = [no_examples(place)]
    raise_errors([*found, *mixed(place, values.unit, first_kind)])
    table = examples.examples()
    table = table if parts is None else table.with_parts(ends)
    return table, [*notes, *(f"{place}: {note}" for note in survey.notes())]


def as_table(path: Path, *shards: Path) -> Table:
    """Return a file, or all shards of a table, as a table; the columns of JSON objects are all of
    their fields.

    Raises:
        UserError: the file cannot be read, or has other values than objects.
    """
    if is_table(path):
        return read_table(path, *shards)
    assert not shards
    values = read_values(path)
    rows, broken = list[Any](), dict[int, list[LineError]]()
    for number, (_, row, wrong) in enumerate(values.values, 1):
        if not wrong and not isinstance(row, dict):
            wrong = [LineError(f"must be a JSON object, but got {show(row)}", "no JSON object")]
        if wrong:
            broken[number] = wrong
        rows.append({} if wrong else row)
    if len(broken) == len(rows):
        errors = LineErrors(path, "row")
        for number, wrong in broken.items():
            errors.add(number, wrong)
        raise_errors(errors.lines() or [no_examples(path)])
    names = dict.fromkeys(name for row in rows for name in row)
    return Table(list(names), [dict.fromkeys(names) | row for row in rows], broken=broken)


def mixed(path: Path | str, unit: str, first: dict[bool, int]) -> list[str]:
    """Return the error for a file that mixes open questions and questions with choices; `first` is
    the first line of each kind (whether it is open)."""
    if len(first) < 2:
        return []
    line = where(path, unit, first[True])
    return [
        f"{line}: choices: is missing, but {unit} {first[False]} has some; "
        "open questions (without choices) and others cannot be mixed: add the choices, or make two "
        "data sets"
    ]


def parse(values: Iterable[Value], read: Read) -> Iterator[Line]:
    """Turn each value into an example, or report its errors."""
    for number, record, errors in values:
        example = None
        if not errors:
            example, errors = read(record)
        identity = read_identity(record, []) if isinstance(record, dict) else ""
        yield Line(number, identity, example, errors, record)


def repeated(identity: str, first: int, unit: str = "line") -> LineError:
    """Return the error for an id that an earlier line has."""
    return LineError(f"id: {show(identity)} is in {unit} {first} already", "a repeated id")


def no_examples(path: Path | str) -> str:
    """Return the error for an empty file."""
    return f"{path}: has no examples; expected one JSON object a line: {FORMAT}"


def write_examples(path: Path, examples: Iterable[Example]) -> None:
    """Write `examples` as JSON Lines, from which `read_examples` reads the same examples.

    Raises:
        OSError: the file cannot be written.
    """
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for example in examples:
            record = {
                "id": example.id,
                "question": example.question,
                "choices": None if example.open else example.choices,
                "answer": example.choices[example.answer],
                "rationale": example.rationale,
            }
            record |= {} if example.group is None else {"group": example.group}
            if example.more_rationales:
                record["more_rationales"] = example.more_rationales
            file.write(strict_json.dumps(record, ensure_ascii=False) + "\n")
