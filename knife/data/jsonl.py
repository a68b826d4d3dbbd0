"""Reads files of examples, reporting all errors in a file at once and noting what is not read."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from knife.core import strict_json
from knife.core.errors import raise_errors
from knife.data.example import Example
from knife.data.formats import Value, read_values
from knife.data.line_errors import LineError, LineErrors, show, where
from knife.data.record import FORMAT, read_example, read_identity
from knife.data.survey import Survey

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
    """The examples of a file, in order, and notes about it for the user."""

    examples: list[Example]
    notes: list[str] = field(default_factory=list)


def read_examples(path: Path) -> list[Example]:
    """Read the examples of a file, without the notes; see `read_file`."""
    return read_file(path).examples


def read_file(path: Path) -> ExampleFile:
    """Read one file of examples, in a format listed in `knife.data.formats`.

    An object has `id` (text or integer, kept as text), `question`, `choices`, `answer` (one of the
    choices, or its index from 0) and, optionally, `rationale`. Without `choices` it is an open
    question and its answer is text. Other fields are ignored, with a note; one that seems to be a
    misnamed field is an error. An empty rationale counts as none.

    Raises:
        UserError: with the errors in the file as `file:line: message`, up to `SHOWN_ERRORS` and
            the number of those omitted; or if the file cannot be read.
    """
    values = read_values(path)
    examples: list[Example] = []
    errors = LineErrors(path, values.unit)
    survey = Survey()
    first_line: dict[str, int] = {}
    first_kind: dict[bool, int] = {}
    for line in parse(values.values, read_example):
        errors.add(line.number, line.errors)
        if line.example is not None:
            examples.append(line.example)
            survey.see(line.record, line.example)
            first_kind.setdefault(line.example.open, line.number)
        if line.identity:
            first = first_line.setdefault(line.identity, line.number)
            if first != line.number:
                errors.add(line.number, [repeated(line.identity, first, values.unit)])
    found = errors.lines()
    if not examples and not found:
        found = [no_examples(path)]
    raise_errors([*found, *mixed(path, values.unit, first_kind)])
    return ExampleFile(examples, [f"{path}: {note}" for note in survey.notes()])


def mixed(path: Path, unit: str, first: dict[bool, int]) -> list[str]:
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


def no_examples(path: Path) -> str:
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
            file.write(strict_json.dumps(record, ensure_ascii=False) + "\n")
