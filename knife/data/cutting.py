"""Cuts words from the end of a part of questions, so that task inputs fit `data.max_tokens`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from knife.core.errors import raise_errors
from knife.data.check import repeated_questions
from knife.data.example import Example, Splits
from knife.data.examples import BATCH, Examples
from knife.data.line_errors import shown_ids
from knife.data.tables.columns import closed
from knife.data.tokens import backend, task_input_text


def input_lengths(examples: Sequence[Example], tokenizers: Sequence[Any]) -> list[int]:
    """Return the number of tokens of each task input, by the tokenizer that makes most of it."""
    lengths: list[int] = []
    for start in range(0, len(examples), BATCH):
        texts = [task_input_text(example)[0] for example in examples[start : start + BATCH]]
        encoded = [backend(tokenizer).encode_batch_fast(texts) for tokenizer in tokenizers]
        lengths += [max(map(len, each)) for each in zip(*encoded, strict=True)]
    return lengths


def cut_to_fit(splits: Splits, tokenizers: Sequence[Any], max_tokens: int, column: str) -> Splits:
    """Return the splits with the questions that make a task input longer than `max_tokens` cut:
    their part of `column` keeps as many words as fit. Other examples are as they were.

    Raises:
        UserError: some do not fit even with the part empty, or a question's only word.
    """
    parts = splits.parts
    notes, errors = [], []
    for name, examples in splits.parts.items():
        table, lengths = Examples.of(examples), input_lengths(examples, tokenizers)
        rows = [row for row, length in enumerate(lengths) if length > max_tokens]
        if not rows:
            continue
        changed, words, hopeless = dict[int, str](), 0, list[tuple[int, str]]()
        for start in range(0, len(rows), BATCH):
            some = rows[start : start + BATCH]
            pieces = zip(table.take(some), table.parts(some), strict=True)
            cuts = [_Cut.of(example, part) for example, part in pieces]
            least = _search(cuts, tokenizers, max_tokens)
            for row, cut, length in zip(some, cuts, least, strict=True):
                changed[row], words = cut.question(cut.kept), max(words, len(cut.ends) - cut.kept)
                hopeless += [(length, cut.example.id)] if length > max_tokens else []
        of = f"{len(examples):,} {name} examples"
        if hopeless:
            ids = shown_ids([identity for _, identity in hopeless])
            errors.append(
                f"data.too_long: cut:{column}: {len(hopeless):,} of {of} are longer than "
                f"data.max_tokens={max_tokens} however much of {column} is cut (the longest then "
                f"has {max(hopeless)[0]}): {ids}; raise data.max_tokens, or use drop"
            )
        notes.append(
            f"{len(rows):,} of {of} are cut to fit data.max_tokens, by at most {words:,} words of "
            f"{column} (data.too_long=cut:{column})"
        )
        questions = enumerate(table.values("question"))
        parts[name] = table.with_questions(changed.get(row, text) for row, text in questions)
    raise_errors(errors)
    found = Splits(**parts, notes=[*splits.notes, *notes], left_out=splits.left_out)
    if notes:
        # Questions that differ only in what is cut are the same now.
        same = repeated_questions(found)
        found.notes.extend(f"once cut, {note}" for note in same if note not in splits.notes)
    return found


@dataclass
class _Cut:
    """An example that is too long: the span of the part that is cut, the ends of its words, and the
    numbers of words that are known to fit (`kept`) and not to fit (`over`)."""

    example: Example
    start: int
    end: int
    ends: list[int]
    kept: int
    over: int

    @staticmethod
    def of(example: Example, part: tuple[int, int]) -> "_Cut":
        start, end = part
        text = example.question
        ends = [start + word.end() for word in re.finditer(r"\S+", text[start:end])]
        # A question never is empty.
        least = 0 if text[:start].strip() or text[end:].strip() else min(1, len(ends))
        return _Cut(example, start, end, ends, least, len(ends))

    def question(self, kept: int) -> str:
        """Return the question with so many words of the part."""
        text = self.example.question
        before, after = text[: self.start], text[self.end :]
        if not kept:
            return before + after.lstrip() if after else before.rstrip()
        part = text[self.start : self.ends[kept - 1]]
        return before + (closed(part) if after else part) + after

    def shortened(self, kept: int) -> Example:
        """Return the example with so many words of the part."""
        return replace(self.example, question=self.question(kept))


def _search(cuts: list[_Cut], tokenizers: Sequence[Any], max_tokens: int) -> list[int]:
    """Halve what is unknown of each until `kept` fits and one word more does not; return the length
    of each with as few words as there may be."""
    least = input_lengths([cut.shortened(cut.kept) for cut in cuts], tokenizers)
    open_ = [cut for cut, n in zip(cuts, least, strict=True) if n <= max_tokens]
    while open_ := [cut for cut in open_ if cut.over - cut.kept > 1]:
        tried = [(cut.kept + cut.over) // 2 for cut in open_]
        shorter = [cut.shortened(kept) for cut, kept in zip(open_, tried, strict=True)]
        lengths = input_lengths(shorter, tokenizers)
        for cut, kept, length in zip(open_, tried, lengths, strict=True):
            if length > max_tokens:
                cut.over = kept
            else:
                cut.kept = kept
    return least
