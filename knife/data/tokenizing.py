"""Turns examples into a table of tokens, some thousands at a time."""

from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from knife.core.errors import raise_errors
from knife.core.garbage import no_search_for_cycles
from knife.data.content import Span, content_tokens
from knife.data.example import Example
from knife.data.examples import BATCH, Examples
from knife.data.line_errors import cap
from knife.data.token_table import (
    Integers,
    TokenBatches,
    TokenFile,
    TokenTable,
    lists,
    token_columns,
)
from knife.data.tokens import (
    ANSWER,
    QUESTION,
    Truncation,
    backend,
    closes,
    encode,
    following,
    rationale_text,
    task_input_text,
)
from knife.data.words import token_words

# What tokens can be marked with, for alignment with the `align.input.tokens` of that name.
Mark = Literal["content", "words"]


@dataclass
class _Found:
    """What is found out about all examples.

    Attributes:
        longest: the number of tokens of the longest task input.
        too_long: how many task inputs have more tokens than are allowed.
        cut: how many tokens each truncated rationale lost.
        errors: choices without tokens.
    """

    longest: int = 0
    too_long: int = 0
    cut: list[int] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def tokenize(
    examples: Sequence[Example],
    tokenizer: Any,
    max_tokens: int,
    *,
    marks: Collection[Mark] = (),
) -> tuple[TokenTable, Truncation]:
    """Tokenise examples for any backbone.

    `max_tokens` limits task input and rationale together: rationales that are too long are
    truncated at the end, and one that keeps none of its own tokens counts as none. `marks` says
    whether to find the tokens that carry content, and the words of each token.

    Raises:
        UserError: task inputs alone are longer than `max_tokens`, or a choice has no tokens.
    """
    tables, truncation = tokenize_splits({"": examples}, tokenizer, max_tokens, marks=marks)
    return tables[""], truncation


def tokenize_splits(
    splits: Mapping[str, Sequence[Example]],
    tokenizer: Any,
    max_tokens: int,
    *,
    marks: Collection[Mark] = (),
    folder: Path | None = None,
) -> tuple[dict[str, TokenTable], Truncation]:
    """Tokenise several splits as `tokenize` does one, with the errors of all of them at once.

    With a folder, each table goes into a file in it, NAME.arrow, as it is made, and is not kept in
    memory.

    Raises:
        UserError: as `tokenize` does.
        OSError: a file cannot be written.
    """
    tables = {name: Examples.of(examples) for name, examples in splits.items()}
    choice_ids = _choice_ids([table.column("choices") for table in tables.values()], tokenizer)
    found, tokens = _Found(), dict[str, TokenTable]()
    for (name, table), own_choices in zip(tables.items(), choice_ids, strict=True):
        made = TokenFile(folder / f"{name}.arrow") if folder else TokenBatches()
        with no_search_for_cycles():
            for number, part in enumerate(_encoded_ahead(table, tokenizer)):
                columns = _columns(part, max_tokens, found, marks)
                columns["choice_ids"] = own_choices.slice(number * BATCH, BATCH)
                made.add(token_columns(**columns))
        tokens[name] = made.close()
    errors = cap(found.errors)
    if found.too_long:
        total = sum(map(len, tables.values()))
        errors.append(
            f"data.max_tokens: {found.too_long} of {total} task inputs are longer than "
            f"{max_tokens} tokens (the longest has {found.longest}), and only rationales are "
            f"truncated: raise data.max_tokens to at least {found.longest}, if the models have "
            "that many positions, cut them (data.too_long=cut:COLUMN of the question), or leave "
            "such examples out (data.too_long=drop)"
        )
    raise_errors(errors)
    return tokens, Truncation(len(found.cut), sum(found.cut))


@dataclass(frozen=True)
class _Encoded:
    """Some examples: their task inputs as texts, each choice's span in these, what the tokenizer
    returns for them, and the tokens of each rationale."""

    examples: list[Example]
    texts: list[str]
    spans: list[list[Span]]
    inputs: list[Any]
    rationales: list[list[int]]


def _encoded_ahead(table: Examples, tokenizer: Any) -> Iterator[_Encoded]:
    """Yield all examples in parts; the next one is made while its reader works on one."""
    starts = range(0, len(table), BATCH)
    with ThreadPoolExecutor(1) as thread:
        coming = deque[Future[_Encoded]]()
        for start in starts:
            coming.append(thread.submit(_encode, table[start : start + BATCH], tokenizer))
            if len(coming) > 1:
                yield coming.popleft().result()
        yield from (part.result() for part in coming)


def _encode(table: Examples, tokenizer: Any) -> _Encoded:
    examples, end = list(table), "" if closes(tokenizer) else "\n"
    made = list(map(task_input_text, examples))
    texts = [text for text, _ in made]
    written = [f"{rationale_text(e.rationale)}{end}" for e in examples if e.rationale]
    tokens = iter(encode(tokenizer, written))
    rationales = [next(tokens) if example.rationale else [] for example in examples]
    inputs = backend(tokenizer).encode_batch(texts)
    return _Encoded(examples, texts, [spans for _, spans in made], inputs, rationales)


def _columns(part: _Encoded, limit: int, found: _Found, marks: Collection[Mark]) -> dict[str, Any]:
    """Return the columns of some examples, but for their choices' tokens."""
    examples, texts, spans = part.examples, part.texts, part.spans
    inputs, offsets = [e.ids for e in part.inputs], [e.offsets for e in part.inputs]
    lengths = list(map(len, inputs))
    found.longest = max(found.longest, *lengths)
    found.too_long += sum(length > limit for length in lengths)
    rationales = _fitting(part.rationales, lengths, limit, found)
    placed = token_spans(list(map(len, texts)), spans, offsets)
    counts = list(map(len, spans))
    for choice in np.flatnonzero(placed[:, 0] == placed[:, 1]):
        row = int(np.searchsorted(np.cumsum(counts), choice, side="right"))
        text = examples[row].choices[choice - sum(counts[:row])]
        found.errors.append(
            f"example {examples[row].id!r}: the tokenizer returns no token for the choice "
            f"{text!r}; give it characters that the model knows"
        )
    content: list[list[int]] = [[] for _ in examples]
    if "content" in marks:
        content = [
            content_tokens(text, [(len(QUESTION), len(QUESTION) + len(e.question)), *own], places)
            for e, text, own, places in zip(examples, texts, spans, offsets, strict=True)
        ]
    words, word_lengths = np.zeros(0, np.int64), np.zeros(len(examples), np.int64)
    if "words" in marks:
        words, word_lengths = token_words(texts, offsets)
    return {
        "input_ids": _lists(inputs),
        "rationale_ids": _lists(rationales),
        "choice_spans": lists(placed.reshape(-1).astype(np.int32), [2 * n for n in counts]),
        "answer": [example.answer for example in examples],
        "open": [example.open for example in examples],
        "answer_text": [e.choices[0] if e.open and e.choices else "" for e in examples],
        "content": _lists(content),
        "words": lists(words.astype(np.int32), word_lengths),
    }


def _fitting(
    rationales: Sequence[list[int]], lengths: Sequence[int], limit: int, found: _Found
) -> list[list[int]]:
    """Return the tokens of each rationale that fit behind its task input of some length."""
    fitting = []
    for ids, length in zip(rationales, lengths, strict=True):
        room = limit - length
        if len(ids) > room:
            found.cut.append(len(ids) - room)
            ids = [*ids[: room - 1], ids[-1]] if room > 1 else []
        fitting.append(ids)
    return fitting


def _choice_ids(choices: Sequence[Any], tokenizer: Any) -> list[Any]:
    """Return the tokens of all choices of each split as Arrow arrays; each text is tokenized only
    once."""
    flat = pa.chunked_array([each.flatten() for each in choices], pa.large_string())
    coded = flat.dictionary_encode().unify_dictionaries()
    texts = coded.chunks[0].dictionary.to_pylist() if coded.chunks else []
    ids = _lists(_answers(texts, tokenizer))
    none = np.zeros(0, dtype=np.int32)
    indices = np.concatenate([none, *(chunk.indices.to_numpy() for chunk in coded.chunks)])
    found, first = [], 0
    for each in choices:
        counts = np.diff(each.offsets.to_numpy())
        found.append(lists(ids.take(pa.array(indices[first : first + counts.sum()])), counts))
        first += counts.sum()
    return found


def _answers(texts: list[str], tokenizer: Any) -> list[list[int]]:
    """Return the tokens of texts as answers with their closing token."""
    if closes(tokenizer):
        return encode(tokenizer, texts)
    # Of all texts at once: they are all continuations, or none is.
    found = following(tokenizer, ANSWER, [f" {text}" for text in texts])
    return [[*ids, tokenizer.eos_token_id] for ids in found]


def _lists(values: Sequence[Sequence[int]]) -> Any:
    lengths = list(map(len, values))
    flat = np.fromiter(chain.from_iterable(values), dtype=np.int32, count=sum(lengths))
    return lists(flat, lengths)


def token_spans(
    lengths: Sequence[int],
    spans: Sequence[Sequence[Span]],
    offsets: Sequence[Sequence[Span]],
) -> Integers:
    """Return for each span of characters the first token that overlaps it and one past the last;
    two equal numbers if there is none.

    Args:
        lengths: the number of characters of each text.
        spans: the spans in each text.
        offsets: the characters of each token of each text.
    """
    counts = list(map(len, offsets))
    places = np.fromiter(
        chain.from_iterable(chain.from_iterable(offsets)), np.int64, count=2 * sum(counts)
    ).reshape(-1, 2)
    # All texts behind one another, with a gap, so that one search serves all of them.
    starts = np.concatenate([[0], np.cumsum(np.asarray(lengths, dtype=np.int64) + 1)[:-1]])
    first_tokens = np.concatenate([[0], np.cumsum(counts)[:-1]])
    # Special tokens are at (0, 0), where no span is.
    own = np.flatnonzero(places[:, 1] > 0)
    shifted = (places + np.repeat(starts, counts)[:, None])[own]
    wanted = np.asarray([span for some in spans for span in some], dtype=np.int64).reshape(-1, 2)
    rows = np.repeat(np.arange(len(spans)), list(map(len, spans)))
    if not len(own) or (np.diff(shifted, axis=0) < 0).any():
        pairs = zip(rows.tolist(), wanted.tolist(), strict=True)
        slow = [_token_span(offsets[row], span) for row, span in pairs]
        found: Integers = np.asarray(slow, dtype=np.int64).reshape(-1, 2)
        return found
    wanted += starts[rows][:, None]
    first = np.searchsorted(shifted[:, 1], wanted[:, 0], side="right")
    last = np.searchsorted(shifted[:, 0], wanted[:, 1], side="left") - 1
    empty = first > last
    first[empty] = last[empty] = 0
    found = np.stack([own[first], own[last] + 1], axis=1) - first_tokens[rows][:, None]
    found[empty] = 0
    return found


def _token_span(offsets: Sequence[Span], span: Sequence[int]) -> Span:
    """Return the span of tokens that overlap a span of characters, however tokens are ordered."""
    rows = [t for t, (start, end) in enumerate(offsets) if start < span[1] and end > span[0]]
    return (rows[0], rows[-1] + 1) if rows else (0, 0)
