"""Examples as an Arrow table: in memory or mapped from a file, and never as objects all at once."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa

from knife.data.example import Example

# So many examples are objects at a time.
BATCH = 5_000
# Offsets of 64 bits, so that a column may be of any size.
_SCHEMA = pa.schema(
    [
        ("id", pa.large_string()),
        ("question", pa.large_string()),
        ("choices", pa.large_list(pa.large_string())),
        ("answer", pa.int32()),
        ("rationale", pa.large_string()),
        ("group", pa.large_string()),
    ]
)
# A further column where any example has several rationales.
_MORE = "more_rationales"
_MORE_SCHEMA = _SCHEMA.append(pa.field(_MORE, pa.large_list(pa.large_string())))


class Examples(Sequence[Example]):
    """Examples as a table: each is made into an object when it is asked for.

    Attributes:
        table: the columns `id`, `question`, `choices`, `answer`, `rationale` and `group`, in one
            piece, and maybe `more_rationales`, and `part`, the span of the question that may be
            cut.
        rows: which rows of the table these examples are, in order; None for all.
    """

    def __init__(self, table: Any, rows: "np.ndarray[Any, Any] | None" = None) -> None:
        self.table, self.rows = table.combine_chunks(), rows
        self._columns: dict[str, Any] = {name: _piece(self.table, name) for name in self._names}

    @staticmethod
    def of(examples: Iterable[Example]) -> "Examples":
        """Return examples as a table; what is one already stays as it is."""
        if isinstance(examples, Examples):
            return examples
        builder = Builder()
        for example in examples:
            builder.add(example)
        return builder.examples()

    @staticmethod
    def joined(parts: Sequence["Examples"]) -> "Examples":
        """Return the examples of several tables in one."""
        if len(parts) == 1:
            return parts[0]
        whole = [part.selected() for part in parts]
        return Examples(pa.concat_tables(whole, promote_options="default"))

    @staticmethod
    def open(path: Path) -> "Examples":
        """Map a file that `write` wrote into memory."""
        return Examples(pa.ipc.open_file(pa.memory_map(str(path))).read_all())

    @staticmethod
    def parse(content: bytes) -> "Examples":
        """Return the examples in the bytes of a file that `write` wrote."""
        return Examples(pa.ipc.open_file(pa.py_buffer(content)).read_all())

    def write(self, path: Path) -> None:
        """Write the examples as an Arrow file.

        Raises:
            OSError: the file cannot be written.
        """
        table = self.selected().select(self._names).combine_chunks()
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=max(1, len(self)))

    def selected(self) -> Any:
        """Return the table with these examples alone, in order."""
        return self.table if self.rows is None else self.table.take(pa.array(self.rows))

    def column(self, name: str) -> Any:
        """Return one column of these examples as an Arrow array."""
        values = self._columns[name]
        return values if self.rows is None else values.take(pa.array(self.rows))

    def take(self, rows: "Sequence[int] | np.ndarray[Any, Any]") -> "Examples":
        """Return some of these examples, by their indices among them."""
        found = np.asarray(rows, dtype=np.int64)
        return Examples(self.table, found if self.rows is None else self.rows[found])

    @property
    def _names(self) -> list[str]:
        """The columns that are written: all but `part`."""
        return [*_SCHEMA.names, *([_MORE] if _MORE in self.table.column_names else [])]

    @property
    def rationale_counts(self) -> "np.ndarray[Any, Any]":
        """How many rationales each example has: at least 1, which may be None."""
        if _MORE not in self._columns:
            return np.ones(len(self), dtype=np.int64)
        counts = pa.compute.list_value_length(self.column(_MORE)).fill_null(0)
        found: np.ndarray[Any, Any] = 1 + counts.to_numpy(zero_copy_only=False)
        return found

    @property
    def most_rationales(self) -> int:
        """The most rationales that one example has: at least 1."""
        return int(self.rationale_counts.max(initial=1))

    def with_rationales(self, rationales: Iterable[str | None]) -> "Examples":
        """Return the same examples with one other rationale each, or none."""
        found = self._with("rationale", rationales)
        return Examples(found.table.drop_columns([_MORE])) if _MORE in found._columns else found

    def nth_rationales(self, number: int) -> "Examples":
        """Return the same examples, each with the rationale of a number alone; those that have
        fewer begin again with their first."""
        if _MORE not in self._columns:
            return self
        pairs = zip(self.values("rationale"), self.values(_MORE), strict=True)
        each = ([first, *(more or [])] for first, more in pairs)
        return self.with_rationales(some[number % len(some)] for some in each)

    def without_groups(self) -> "Examples":
        """Return the same examples without their groups."""
        return self._with("group", (None for _ in range(len(self))))

    def with_questions(self, questions: Iterable[str]) -> "Examples":
        """Return the same examples with other questions, of which no part is known."""
        return Examples(self.selected().select(self._names))._with("question", questions)

    def with_parts(self, ends: Sequence[int]) -> "Examples":
        """Return the same examples with a part of each question: its first character and one past
        its last, all in one row. These are not written to files."""
        part = pa.FixedSizeListArray.from_arrays(pa.array(ends, pa.int64()), 2)
        return Examples(self.selected().append_column("part", part))

    def parts(self, rows: Sequence[int]) -> list[tuple[int, int]]:
        """Return the spans of parts of some questions: all of each, if no parts are known."""
        table = self.take(rows).selected()
        if "part" in table.column_names:
            return [(start, end) for start, end in table.column("part").to_pylist()]
        return [(0, len(question)) for question in table.column("question").to_pylist()]

    def _with(self, name: str, texts: Iterable[str | None]) -> "Examples":
        pieces = [pa.array(some, pa.large_string()) for some in _batched(texts)]
        column = pa.chunked_array(pieces, pa.large_string())
        return Examples(self.selected().set_column(_SCHEMA.names.index(name), name, column))

    def values(self, name: str) -> Iterator[Any]:
        """Yield the values of one column, few of them as objects at a time."""
        column = self.column(name)
        for start in range(0, len(self), BATCH):
            yield from column.slice(start, BATCH).to_pylist()

    @property
    def explained(self) -> "np.ndarray[Any, Any]":
        """Whether each example has a rationale."""
        found: np.ndarray[Any, Any] = self.column("rationale").is_valid().to_numpy(False)
        return found

    def __len__(self) -> int:
        """Return the number of examples."""
        return self.table.num_rows if self.rows is None else len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Example: ...

    @overload
    def __getitem__(self, index: slice) -> "Examples": ...

    def __getitem__(self, index: int | slice) -> "Example | Examples":
        """Return an example, or those of a slice."""
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        row = range(len(self))[index]
        row = row if self.rows is None else int(self.rows[row])
        return _example(*(column[row].as_py() for column in self._columns.values()))

    def __iter__(self) -> Iterator[Example]:
        """Yield the examples; only `BATCH` of them are objects at a time."""
        for start in range(0, len(self), BATCH):
            if self.rows is None:
                parts = [column.slice(start, BATCH) for column in self._columns.values()]
            else:
                rows = pa.array(self.rows[start : start + BATCH])
                parts = [column.take(rows) for column in self._columns.values()]
            yield from map(_example, *(part.to_pylist() for part in parts))

    def __eq__(self, other: object) -> bool:
        """Whether these are the examples of another sequence."""
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """Say how many there are."""
        return f"<{len(self):,} examples>"


class Ids(Sequence[str]):
    """The ids of examples, each read when it is asked for."""

    def __init__(self, examples: Examples) -> None:
        self._column = examples.column("id")

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self._column)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        """Return an id, or those of a slice."""
        if isinstance(index, slice):
            return [self[row] for row in range(len(self))[index]]
        found: str = self._column[range(len(self))[index]].as_py()
        return found


class Builder:
    """Makes a table of examples that come one by one."""

    def __init__(self) -> None:
        self._batches: list[Any] = []
        self._part: list[Example] = []

    def add(self, example: Example) -> None:
        """Add an example at the end."""
        self._part.append(example)
        if len(self._part) == BATCH:
            self._batches.append(_record_batch(self._part))
            self._part = []

    def __len__(self) -> int:
        """Return the number of examples so far."""
        return len(self._batches) * BATCH + len(self._part)

    def examples(self) -> Examples:
        """Return all examples as a table."""
        self._batches.append(_record_batch(self._part))
        table = _one_piece(self._batches, _MORE_SCHEMA)
        several = len(pa.compute.list_flatten(table.column(_MORE)))
        return Examples(table if several else table.drop_columns([_MORE]))


def values_of(examples: Sequence[Example], name: str) -> Iterator[Any]:
    """Yield one field of each example; of a table, without making examples of it."""
    if isinstance(examples, Examples):
        return examples.values(name)
    return (getattr(example, name) for example in examples)


def explained_count(examples: Sequence[Example]) -> int:
    """Return how many examples have a rationale."""
    if isinstance(examples, Examples):
        return int(examples.explained.sum())
    return sum(example.rationale is not None for example in examples)


def _one_piece(batches: list[Any], schema: Any) -> Any:
    """Return record batches as a table in one piece, and empty their list: so there is never much
    more than one copy of the data."""
    columns = [[batch.column(name) for batch in batches] for name in schema.names]
    batches.clear()
    whole = []
    for pieces, field in zip(columns, schema, strict=True):
        whole.append(pa.concat_arrays(pieces) if pieces else pa.array([], field.type))
        pieces.clear()
    return pa.table(whole, schema=schema)


def _piece(table: Any, name: str) -> Any:
    """Return a column of a table whose chunks are combined: there is one, or none."""
    chunks = table.column(name).chunks
    return chunks[0] if chunks else pa.array([], _MORE_SCHEMA.field(name).type)


def _batched(items: Iterable[Any]) -> Iterator[list[Any]]:
    rest = iter(items)
    while part := list(islice(rest, BATCH)):
        yield part


def _record_batch(examples: Sequence[Example]) -> Any:
    return pa.record_batch(
        [[getattr(each, name) for each in examples] for name in _MORE_SCHEMA.names],
        schema=_MORE_SCHEMA,
    )


def _example(
    identity: str,
    question: str,
    choices: list[str],
    answer: int,
    rationale: str | None,
    group: str | None,
    more: list[str] | None = None,
) -> Example:
    return Example(identity, question, tuple(choices), answer, rationale, group, tuple(more or ()))
