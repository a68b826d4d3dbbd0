"""Maps the rows of a table to records of the kind that files of examples contain."""

import ast
import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from knife.config.columns import Columns
from knife.core import strict_json
from knife.core.errors import UserError, nearest, raise_errors
from knife.core.words import counted
from knife.data.answer import find_answer
from knife.data.line_errors import LineError, show
from knife.data.record import Record
from knife.data.subset import lot
from knife.data.tables.answers import Answered, find_form, index_of, unanswered
from knife.data.tables.guess import guessed
from knife.data.tables.table import Row, Table

_STOPS = ".,;?!"


@dataclass
class Mapping:
    """Columns of a table and what they hold, found out from all of its rows.

    Attributes:
        table: the table, and where it is.
        columns: the columns and what the answers are; nothing is left to be guessed.
        fixed: the choices of every row, if they are not in columns.
        prefix: what ids start with that are made.
        evened: rows in which choices lost the stops that set some of them apart.
        ids: made ids, and how often each was made.
        cut: the column of the question that may be cut; None if there is none.
        parts: where its text is in the joined question, by the number of the row.
    """

    table: Table
    place: str
    columns: Columns
    fixed: list[str] | None
    prefix: str = ""
    evened: int = 0
    ids: Counter[str] = field(default_factory=Counter)
    cut: str | None = None
    parts: dict[int, tuple[int, int]] = field(default_factory=dict)

    @property
    def unread(self) -> list[str]:
        """The columns that are not read."""
        return [name for name in self.table.names if name not in self.columns.read]

    def values(self) -> Iterator[tuple[int, Record, list[LineError]]]:
        """Yield the number of each row, its record, and why it cannot be one."""
        for number, row in enumerate(self.table.rows, 1):
            if errors := self.table.broken.get(number):
                yield number, {}, errors
            else:
                if self.cut:
                    self.parts[number] = self._part(row, self.cut)
                yield number, *self.record(row)

    def record(self, row: Row) -> tuple[Record, list[LineError]]:
        """Turn a row into a record."""
        columns = self.columns
        errors: list[LineError] = []
        question = _joined([row[name] for name in columns.question or []], close_last=False)
        record: dict[str, Any] = {
            "question": "" if question is None else question,
            "rationale": _joined([row[name] for name in columns.rationale or []], close_last=True),
        }
        choices, labels = self.choices(row, errors)
        if columns.choices:
            record["choices"] = self._evened(choices)
        answer = self._answer(row, choices, labels, errors)
        if isinstance(answer, int) and choices and not errors:
            answer = record["choices"][answer]
        record["answer"] = answer
        record["id"] = _text(row[columns.id]) if columns.id else self._made_id(record)
        if columns.group:
            record["group"] = _text(row[columns.group]) or None
        if columns.choices and columns.answer in columns.choices and not errors:
            # The right one is in the same column in every row.
            record["choices"] = shuffled(record["choices"], str(record["id"]))
        return record, errors

    def choices(self, row: Row, errors: list[LineError]) -> tuple[list[str], list[str]]:
        """Return the choices of a row and their labels; both are empty if there are none."""
        if self.fixed is not None:
            return self.fixed, []
        names = self.columns.choices or []
        if len(names) != 1:
            # A row may have fewer choices than there are columns.
            texts = [_choice(row[name]) for name in names]
            while len(texts) > 2 and not texts[-1].strip():
                texts.pop()
            return texts, []
        found = _listed(row[names[0]])
        if found is None:
            said = f"choices: must be a list of texts, but got {show(row[names[0]])}"
            errors.append(LineError(said, "choices of another type", once=True))
            return [], []
        return found

    def answered(self) -> Iterator[Answered]:
        """Yield the answers of all rows that have choices, with these.

        Raises:
            UserError: no row has any; the message is about the first.
        """
        errors: list[LineError] = []
        found = False
        for number, row in enumerate(self.table.rows, 1):
            if number in self.table.broken:
                continue
            choices, labels = self.choices(row, errors)
            if choices:
                found = True
                yield self._value(row), choices, labels
        if errors and not found:
            raise UserError(f"{self.place}: {errors[0].message}")

    def _part(self, row: Row, cut: str) -> tuple[int, int]:
        """Return where a column is in the joined question. What follows is the same without what is
        before it, as only the last text is not closed."""
        names = self.columns.question or []
        at = names.index(cut)
        joined = (
            _joined([row[name] for name in names[n:]], close_last=False) for n in (0, at, at + 1)
        )
        whole, rest, after = (len(text) if isinstance(text, str) else 0 for text in joined)
        # A blank is before what follows.
        return whole - rest, max(whole - rest, whole - after - bool(after))

    def _value(self, row: Row) -> Any:
        """Return what the answer column has; the name of a class instead of its number."""
        name = self.columns.answer
        value = row[name] if name else None
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if name in self.table.classes and isinstance(value, int) and value >= 0:
            return self.table.classes[name][value]
        return value

    def _answer(
        self, row: Row, choices: list[str], labels: list[str], errors: list[LineError]
    ) -> Any:
        """Return the index of the answer, the answer's text if it is open, or None if unknown."""
        value = self._value(row)
        if unanswered(value, choices):
            return None
        if not self.columns.choices:
            return _text(value)
        if self.columns.answer in self.columns.choices:
            return self.columns.choices.index(self.columns.answer)
        form = self.columns.answer_is
        assert form
        index = index_of(form, (value, choices, labels)) if choices else 0
        if index is None:
            said = f"answer: {show(value)} is no {form} of the choices {show(choices)}"
            error = LineError(said, "an answer that is not among the choices")
            # It sees what only looks like a choice.
            found = find_answer(value, choices) if form == "text" else error
            errors.append(found if isinstance(found, LineError) else error)
        return index

    def _evened(self, choices: list[str]) -> list[str]:
        """Return choices without outer blanks and, if only some end in a stop, without stops."""
        texts = [one.strip() for one in choices]
        ends = {one[-1] in _STOPS for one in texts if one}
        bare = [one.rstrip(_STOPS) for one in texts]
        if len(ends) < 2 or not all(bare):
            return texts
        self.evened += 1
        return bare

    def _made_id(self, record: Record) -> str:
        content = strict_json.dumps([record["question"], record.get("choices")], default=str)
        made = self.prefix + hashlib.sha256(content.encode()).hexdigest()[:12]
        self.ids[made] += 1
        return made if self.ids[made] == 1 else f"{made}-{self.ids[made]}"


def map_table(
    table: Table, columns: Columns | None, place: str, cut: str | None = None
) -> tuple[Mapping, list[str]]:
    """Return how a table's columns become examples, and notes on what was guessed. `cut` is the
    column of the question that may be cut, if any.

    Raises:
        UserError: with everything wrong with the columns; `place` says where the table is.
    """
    given = columns or Columns()
    names = table.names
    known = given.question or names
    raise_errors([*missing_columns(given, names, place), *cut_errors(cut, known, place)])
    found, notes = guessed(given, table, place)
    raise_errors(cut_errors(cut, found.question or [], place))
    fixed = None
    if found.choices and not set(found.choices) <= set(names):
        fixed = found.choices
    elif found.choices is None and found.answer in table.classes:
        fixed = table.classes[found.answer]
        found = found.model_copy(update={"choices": fixed})
    if fixed and found != given:
        notes.append(f"{place}: each row has the choices {', '.join(map(repr, fixed))}")
    mapping = Mapping(table, place, found, fixed, cut=cut)
    if found.choices and found.answer not in found.choices and not found.answer_is:
        form = find_form(f"{place}: data.columns.answer={found.answer}", mapping.answered())
        mapping.columns = found.model_copy(update={"answer_is": form})
        notes.append(f"{place}: each answer is a choice's {_WORDS[form]}")
    return mapping, notes


_WORDS = {
    "text": "text",
    "letter": "letter",
    "label": "label",
    "index": "index, counted from 0",
    "index1": "index, counted from 1",
    "bool": "truth value",
}


def mapping_notes(mapping: Mapping, place: str) -> list[str]:
    """Return notes on what was changed in the rows, once they have all been read."""
    notes = []
    if mapping.unread:
        notes.append(f"{place}: columns that are not read: {', '.join(mapping.unread)}")
    if mapping.evened:
        rows = counted(mapping.evened, "row")
        notes.append(f"{place}: stops at the end of some choices, which set them apart, were "
                     f"removed in {rows}")  # fmt: skip
    return notes


def shuffled(choices: Sequence[str], identity: str) -> list[str]:
    """Return choices in an order that depends on the example's id alone."""
    order = sorted(range(len(choices)), key=lambda n: lot(0, "choices", f"{identity}:{n}"))
    return [choices[n] for n in order]


def missing_columns(columns: Columns, names: list[str], place: str) -> list[str]:
    """Return an error for each given column that the table lacks."""
    errors = []
    for key in ("question", "rationale", "answer", "id", "group"):
        wanted = getattr(columns, key)
        for name in [wanted] if isinstance(wanted, str) else wanted or []:
            if name not in names:
                said = f"data.columns.{key}: {place} has no column {name!r}"
                errors.append(f"{said}; {nearest(name, names)}")
    choices = columns.choices or []
    unknown = [name for name in choices if name not in names]
    if (len(choices) == 1 and unknown) or (unknown and len(unknown) < len(choices)):
        errors += [
            f"data.columns.choices: {place} has no column {name!r}; {nearest(name, names)}"
            for name in unknown
        ]
    return errors


def cut_errors(cut: str | None, names: list[str], place: Path | str) -> list[str]:
    """Return the error if a column that is to be cut is none of the question's, whose names are
    given."""
    if cut is None or cut in names:
        return []
    return [
        f"data.too_long: cut:{cut}: {place} has no such column of the question; use "
        f"{' or '.join(f'cut:{name}' for name in names)}"
    ]


def _text(value: Any) -> Any:
    """Return a number as text, without the decimals of a whole one, and None for NaN; anything else
    as it is."""
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return str(int(value)) if value.is_integer() else str(value)
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _choice(value: Any) -> str:
    """Return a choice as text; an empty one if there is none."""
    text = _text(value)
    return "" if text is None else str(text)


def _joined(values: list[Any], *, close_last: bool) -> Any:
    """Join texts and numbers, each closed by a stop; lists count as several. What is neither is
    returned as it is, and refused later."""
    parts = [one for value in values for one in (value if isinstance(value, list) else [value])]
    texts = [text for text in map(_text, parts) if text is not None]
    for text in texts:
        if not isinstance(text, str):
            return text
    texts = [text.strip() for text in texts if text.strip()]
    if len(texts) < 2:
        return texts[0] if texts else None
    last = len(texts) - (not close_last)
    return " ".join(closed(text) if n < last else text for n, text in enumerate(texts))


def closed(text: str) -> str:
    """Return a text that ends in a stop, which is added if there is none."""
    return text if re.search(r"[.?!:…][\"')\]]*$", text) else f"{text.rstrip(',;')}."


def _listed(value: Any) -> tuple[list[str], list[str]] | None:
    """Return the choices in a column of lists and their labels; None if it is something else.

    A list may be a list of texts, `{"text": […], "label": […]}`, a list of `{"text", "label"}`, or
    a text that is such a list in JSON or Python.
    """
    if isinstance(value, str):
        value = _decoded(value)
    if isinstance(value, dict):
        texts, labels = value.get("text"), value.get("label", [])
    elif isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
        texts = [one.get("text") for one in value]
        labels = [one["label"] for one in value if "label" in one]
    else:
        texts, labels = value, []
    if not isinstance(texts, list) or not isinstance(labels, list):
        return None
    if labels and len(labels) < len(texts):
        # Nobody knows which choice has none.
        return None
    return [_choice(one) for one in texts], [str(one) for one in labels]


def _decoded(text: str) -> Any:
    for decode in (json.loads, ast.literal_eval):
        try:
            return decode(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return None
