"""Tokenized examples as an Arrow table: in memory or mapped from a file."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa

from knife.data.tokens import Tokens

_IDS = pa.large_list(pa.int32())
_SCHEMA = pa.schema(
    [
        ("input_ids", _IDS),
        ("rationale_ids", _IDS),
        ("choice_ids", pa.large_list(_IDS)),
        # First and one past the last token of each choice.
        ("choice_spans", _IDS),
        ("answer", pa.int32()),
        ("open", pa.bool_()),
        ("answer_text", pa.large_string()),
        ("content", _IDS),
        # First and one past the last word of each token of the task input.
        ("words", _IDS),
    ]
)
Integers = np.ndarray[Any, Any]


class TokenTable(Sequence[Tokens]):
    """Tokenized examples as a table: each is made into an object when it is asked for.

    Attributes:
        rows: which rows of the table these examples are, in order; None for all.
    """

    def __init__(self, parts: "Sequence[_Part]", rows: Integers | None = None) -> None:
        self._parts, self.rows = parts, rows
        # The first row of each part, and one past the last.
        self._starts = np.cumsum([0, *(len(part) for part in parts)])

    @staticmethod
    def of_batches(batches: Sequence[Any]) -> "TokenTable":
        """Return the examples of record batches, which `token_columns` makes."""
        return TokenTable([_Part(batch) for batch in batches])

    @staticmethod
    def open(path: Path) -> "TokenTable":
        """Map a file that `write` or `TokenFile` wrote into memory."""
        file = pa.ipc.open_file(pa.memory_map(str(path)))
        return TokenTable.of_batches([file.get_batch(n) for n in range(file.num_record_batches)])

    def write(self, path: Path) -> None:
        """Write the table as an Arrow file.

        Raises:
            OSError: the file cannot be written.
        """
        assert self.rows is None
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, _SCHEMA) as writer:
            for part in self._parts:
                writer.write_batch(part.batch)

    def take(self, rows: "Sequence[int] | Integers") -> "TokenTable":
        """Return some of these examples, by their indices among them."""
        found = np.asarray(rows, dtype=np.int64)
        return TokenTable(self._parts, found if self.rows is None else self.rows[found])

    @property
    def input_lengths(self) -> Integers:
        """The number of tokens of each task input."""
        return self._selected(part.inputs.lengths for part in self._parts)

    @property
    def rationale_lengths(self) -> Integers:
        """The number of tokens of each rationale."""
        return self._selected(part.rationales.lengths for part in self._parts)

    @property
    def choice_counts(self) -> Integers:
        """The number of choices of each example."""
        return self._selected(np.diff(part.choices) for part in self._parts)

    @property
    def choice_lengths(self) -> Integers:
        """The number of tokens of all choices of a whole table, one after another."""
        assert self.rows is None
        return _joined(part.choice_ids.lengths for part in self._parts)

    def digest(self) -> str:
        """Return a digest of task inputs and choices, for the comparison of two tokenizers."""
        hashed = hashlib.sha256()
        for part in self._parts:
            for each in (part.inputs, part.choice_ids):
                hashed.update(each.lengths.tobytes())
                hashed.update(each.values.tobytes())
        return hashed.hexdigest()[:16]

    def without_words(self) -> Integers:
        """The rows of examples whose tokens belong to no word; of a whole table alone."""
        assert self.rows is None
        return np.flatnonzero(_joined(part.words.lengths for part in self._parts) == 0)

    def possibly_alike(self) -> Integers:
        """The rows of which two choices have tokens with the same hash; of a whole table alone."""
        assert self.rows is None
        parts = zip(self._starts[:-1], self._parts, strict=True)
        return _joined(start + part.possibly_alike() for start, part in parts)

    def __len__(self) -> int:
        """Return the number of examples."""
        return int(self._starts[-1]) if self.rows is None else len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Tokens: ...

    @overload
    def __getitem__(self, index: slice) -> "TokenTable": ...

    def __getitem__(self, index: int | slice) -> "Tokens | TokenTable":
        """Return an example, or those of a slice."""
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        row = range(len(self))[index]
        row = row if self.rows is None else int(self.rows[row])
        part = int(np.searchsorted(self._starts, row, side="right")) - 1
        return self._parts[part].tokens(row - int(self._starts[part]))

    def __iter__(self) -> Iterator[Tokens]:
        """Yield the examples one by one."""
        if self.rows is not None:
            yield from map(self.__getitem__, range(len(self)))
            return
        for part in self._parts:
            yield from part

    def __eq__(self, other: object) -> bool:
        """Whether these are the examples of another sequence."""
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def _selected(self, parts: Iterable[Integers]) -> Integers:
        values = _joined(parts)
        return values if self.rows is None else values[self.rows]


class TokenBatches:
    """Collects record batches of tokenized examples in memory."""

    def __init__(self) -> None:
        self._batches: list[Any] = []

    def add(self, batch: Any) -> None:
        """Keep a batch, which `token_columns` makes."""
        self._batches.append(batch)

    def close(self) -> TokenTable:
        """Return all of them as a table."""
        return TokenTable.of_batches(self._batches)


class TokenFile:
    """Writes record batches of tokenized examples into a file, as they come."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._file, _SCHEMA)

    def add(self, batch: Any) -> None:
        """Write a batch, which `token_columns` makes.

        Raises:
            OSError: it cannot be written.
        """
        self._writer.write_batch(batch)

    def close(self) -> TokenTable:
        """Finish the file, and map it into memory."""
        self._writer.close()
        self._file.close()
        return TokenTable.open(self._path)


class _Part:
    """A record batch of tokenized examples, as arrays of numpy."""

    def __init__(self, batch: Any) -> None:
        self.batch = batch
        self.inputs, self.rationales = (_Lists(batch.column(name)) for name in _SCHEMA.names[:2])
        choices = batch.column("choice_ids")
        # The choices of each example are consecutive lists.
        self.choices = _offsets(choices)
        first, last = self.choices[0], self.choices[-1]
        self.choice_ids = _Lists(choices.values.slice(first, last - first))
        self.choices = self.choices - first
        self._spans, self._content, self.words = (
            _Lists(batch.column(name)) for name in ("choice_spans", "content", "words")
        )
        self._answers = batch.column("answer").to_numpy()
        self._open, self._texts = batch.column("open"), batch.column("answer_text")

    def __len__(self) -> int:
        return self.batch.num_rows  # type: ignore[no-any-return]

    def tokens(self, row: int) -> Tokens:
        first, last = self.choices[row], self.choices[row + 1]
        spans, words = self._spans[row], self.words[row]
        return Tokens(
            input_ids=self.inputs[row],
            rationale_ids=self.rationales[row],
            choice_ids=[self.choice_ids[choice] for choice in range(first, last)],
            choice_spans=list(zip(spans[::2], spans[1::2], strict=True)),
            answer=int(self._answers[row]),
            open=self._open[row].as_py(),
            answer_text=self._texts[row].as_py(),
            content=self._content[row],
            words=list(zip(words[::2], words[1::2], strict=True)),
        )

    def __iter__(self) -> Iterator[Tokens]:
        # All at once, which is several times as fast as row by row.
        choice_ids, bounds = self.choice_ids.all(), self.choices.tolist()
        columns = (
            self.inputs.all(),
            self.rationales.all(),
            (choice_ids[first:last] for first, last in pairwise(bounds)),
            (list(zip(own[::2], own[1::2], strict=True)) for own in self._spans.all()),
            self._answers.tolist(),
            self._open.to_pylist(),
            self._texts.to_pylist(),
            self._content.all(),
            (list(zip(own[::2], own[1::2], strict=True)) for own in self.words.all()),
        )
        for inputs, rationale, choices, spans, answer, opened, text, content, words in zip(
            *columns, strict=True
        ):
            yield Tokens(
                inputs,
                rationale,
                choices,
                spans,
                answer,
                opened,
                text,
                content=content,
                words=words,
            )

    def possibly_alike(self) -> Integers:
        counts = np.diff(self.choices)
        rows = np.repeat(np.arange(len(counts)), counts)
        spans = self._spans.values.reshape(-1, 2).astype(np.int64)
        # Open questions list no choices.
        listed = np.repeat(np.arange(len(counts)), self._spans.lengths // 2)
        starts = self.inputs.offsets[:-1][listed]
        hashes = _hashes(self.inputs.values, starts + spans[:, 0], starts + spans[:, 1])
        found = [_repeated(rows, self.choice_ids.hashes()), _repeated(listed, hashes)]
        alike: Integers = np.unique(np.concatenate(found))
        return alike


class Changed(Sequence[Tokens]):
    """Tokenized examples in another form, each made when it is asked for."""

    def __init__(self, tokens: Sequence[Tokens], change: Callable[[Tokens], Tokens]) -> None:
        self._tokens, self._change = tokens, change

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self._tokens)

    @overload
    def __getitem__(self, index: int) -> Tokens: ...

    @overload
    def __getitem__(self, index: slice) -> "Changed": ...

    def __getitem__(self, index: int | slice) -> "Tokens | Changed":
        """Return an example, or those of a slice."""
        if isinstance(index, slice):
            return Changed(self._tokens[index], self._change)
        return self._change(self._tokens[index])


def sequence_lengths(tokens: Sequence[Tokens], *, rationale: bool) -> list[int]:
    """Return the number of tokens of each `[I]`, or with `rationale` of each `[I ; R]`."""
    if isinstance(tokens, TokenTable):
        lengths = tokens.input_lengths
        found: list[int] = (lengths + tokens.rationale_lengths if rationale else lengths).tolist()
        return found
    return [len(each.input_ids) + rationale * len(each.rationale_ids) for each in tokens]


def with_rationale(tokens: Sequence[Tokens]) -> list[int]:
    """Return the rows of the examples that have a rationale."""
    if isinstance(tokens, TokenTable):
        found: list[int] = np.flatnonzero(tokens.rationale_lengths).tolist()
        return found
    return [row for row, each in enumerate(tokens) if each.rationale_ids]


def longest_choice(tokens: Sequence[Tokens]) -> int:
    """Return the number of tokens of the longest choice."""
    if isinstance(tokens, TokenTable) and tokens.rows is None:
        return int(tokens.choice_lengths.max())
    return max(len(ids) for each in tokens for ids in each.choice_ids)


def picked(tokens: Sequence[Tokens], rows: Sequence[int]) -> Sequence[Tokens]:
    """Return some examples, by their rows."""
    if isinstance(tokens, TokenTable):
        return tokens.take(rows)
    return [tokens[row] for row in rows]


def possibly_alike(tokens: Sequence[Tokens]) -> list[int]:
    """Return the rows of examples of which two choices may be the same tokens, as answers or where
    the task input lists them: all that are, and in practice no others."""
    if not isinstance(tokens, TokenTable):
        return list(range(len(tokens)))
    found: list[int] = tokens.possibly_alike().tolist()
    return found


def token_columns(**columns: Any) -> Any:
    """Return a record batch of tokenized examples from its columns."""
    return pa.record_batch([columns[name] for name in _SCHEMA.names], schema=_SCHEMA)


def lists(values: Sequence[Sequence[int]] | Any, lengths: Sequence[int] | Integers) -> Any:
    """Return lists of integers as an Arrow array, from all values and the length of each list."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return pa.LargeListArray.from_arrays(pa.array(offsets), values)


class _Lists:
    """Lists of integers in an Arrow array."""

    def __init__(self, array: Any) -> None:
        offsets = _offsets(array)
        # An array may be a slice of a longer one.
        self.values = array.values.to_numpy()[offsets[0] : offsets[-1]]
        self.offsets = offsets - offsets[0] if offsets[0] else offsets

    def __getitem__(self, row: int) -> list[int]:
        found: list[int] = self.values[self.offsets[row] : self.offsets[row + 1]].tolist()
        return found

    def all(self) -> list[list[int]]:
        values, offsets = self.values.tolist(), self.offsets.tolist()
        return [values[start:end] for start, end in pairwise(offsets)]

    @property
    def lengths(self) -> Integers:
        return np.diff(self.offsets)

    def hashes(self) -> Integers:
        return _hashes(self.values, self.offsets[:-1], self.offsets[1:])


def _hashes(values: Integers, starts: Integers, ends: Integers) -> Integers:
    """Return a number for each stretch of values; stretches that are equal have equal numbers."""
    lengths = ends - starts
    places = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    weights = np.random.default_rng(0).integers(0, 2**63, lengths.max(initial=0), dtype=np.uint64)
    own = values[np.repeat(starts, lengths) + places].astype(np.uint64)
    # Sums of products modulo 2 to the 64.
    sums = np.zeros(len(own) + 1, dtype=np.uint64)
    np.cumsum((own + np.uint64(1)) * weights[places], out=sums[1:])
    last = np.cumsum(lengths)
    found: Integers = sums[last] - sums[last - lengths] + lengths.astype(np.uint64)
    return found


def _repeated(rows: Integers, hashes: Integers) -> Integers:
    """Return the rows that have a hash twice."""
    order = np.lexsort((hashes, rows))
    rows, hashes = rows[order], hashes[order]
    same = (rows[1:] == rows[:-1]) & (hashes[1:] == hashes[:-1])
    found: Integers = np.unique(rows[1:][same])
    return found


def _offsets(array: Any) -> Integers:
    found: Integers = array.offsets.to_numpy()
    return found


def _joined(parts: Iterable[Integers]) -> Integers:
    found: Integers = np.concatenate([np.zeros(0, dtype=np.int64), *parts])
    return found
