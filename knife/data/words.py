"""Words of task inputs, and the tokens of each, for the alignment of models with unlike tokenizers.

A word is a run of letters, digits and underscores with the marks on them, or any other visible
character alone. A token belongs to every word of which it has a character: white space in it does
not count, and a special token belongs to none.

Places in a text that leave out a letter, digit or sign cannot be trusted: where a tokenizer drops a
character without a trace, the places of those that follow are wrong. Such a text has no words.
Marks and control characters may be left out, as by tokenizers that remove accents.
"""

import re
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import chain

import numpy as np

from knife.data.content import Span
from knife.data.example import Splits
from knife.data.line_errors import shown_ids
from knife.data.token_table import Integers, TokenTable


def text_words(text: str) -> list[Span]:
    """Return the words of a text, as spans of characters in order."""
    return [found.span() for found in _word().finditer(text)]


def token_words(
    texts: Sequence[str], offsets: Sequence[Sequence[Span]]
) -> tuple[Integers, Integers]:
    """Return the words of each token, by their numbers in its text.

    `offsets` are the characters of each token of each text. The first array has, for all tokens of
    all texts, the first word and one past the last, which are equal if a token belongs to none; the
    second has the length of each text's part of it, 0 for a text whose places cannot be trusted.
    """
    counts = np.asarray(list(map(len, offsets)), dtype=np.int64)
    places = np.fromiter(
        chain.from_iterable(chain.from_iterable(offsets)), np.int64, count=2 * int(counts.sum())
    ).reshape(-1, 2)
    # All texts behind one another, with a gap.
    joined, lengths = "\n".join(texts), np.asarray(list(map(len, texts)), dtype=np.int64)
    starts = np.cumsum(lengths + 1) - lengths - 1
    rows = np.repeat(np.arange(len(texts)), counts)
    first, end = places.T
    inside = (first >= 0) & (first <= end) & (end <= lengths[rows])
    wrong = np.zeros(len(texts), dtype=bool)
    wrong[rows[~inside]] = True
    spans = [text_words(text) for text in texts]
    word_counts = np.asarray(list(map(len, spans)), dtype=np.int64)
    words = np.asarray([span for own in spans for span in own], dtype=np.int64).reshape(-1, 2)
    words += np.repeat(starts, word_counts)[:, None]
    # An empty token, such as a special one, has no character.
    own = inside & (end > first)
    tokens = (places + starts[rows][:, None])[own]
    found = np.zeros_like(places)
    found[own, 0] = np.searchsorted(words[:, 1], tokens[:, 0], side="right")
    found[own, 1] = np.searchsorted(words[:, 0], tokens[:, 1], side="left")
    found[own] -= (np.cumsum(word_counts) - word_counts)[rows[own]][:, None]
    found[found[:, 0] >= found[:, 1]] = 0
    left_out = _covered(words, len(joined)) & ~_covered(tokens, len(joined))
    for place in np.flatnonzero(left_out):
        if unicodedata.category(joined[place])[0] not in "MC":
            wrong[np.searchsorted(starts, place, side="right") - 1] = True
    return found[~wrong[rows]].reshape(-1), np.where(wrong, 0, 2 * counts)


def look_for_words(
    splits: Splits, tables: Mapping[str, TokenTable], model: str
) -> tuple[list[str], list[str]]:
    """Return errors and notes about training examples whose tokens cannot be put together to words;
    `model` names the tokenizer in them."""
    # Others are not aligned.
    explained = tables["train"].rationale_lengths > 0
    size, without = int(explained.sum()), tables["train"].without_words()
    without = without[explained[without]]
    if not len(without):
        return [], []
    why = (
        f"since some of their characters are in no token ({model}), so that the places of the "
        "other tokens cannot be trusted"
    )
    if len(without) == size:
        return [
            "align.input.tokens: no train example with a rationale can be aligned by words, "
            f"{why}; set it to mean, or give a model with another tokenizer"
        ], []
    ids = shown_ids([splits.train[int(row)].id for row in without])
    return [], [
        f"{len(without):,} of {size:,} train examples with a rationale have no input alignment, "
        f"{why}: {ids}"
    ]


@cache
def _word() -> re.Pattern[str]:
    """Return the pattern of words; Python's `\\w` has no marks."""
    marks: list[list[int]] = []
    for code in range(sys.maxunicode + 1):
        if unicodedata.category(chr(code))[0] == "M":
            if marks and marks[-1][1] == code - 1:
                marks[-1][1] = code
            else:
                marks.append([code, code])
    ranges = "".join(f"{chr(first)}-{chr(last)}" for first, last in marks)
    # The look ahead is for speed: no mark is in ASCII.
    return re.compile(rf"\w+(?:(?![\x00-\x7f])[{ranges}]+\w*)*|\S")


def _covered(spans: Integers, length: int) -> Integers:
    """Return which characters are in at least one span."""
    first, end = (np.bincount(each, minlength=length + 1) for each in spans.T)
    found: Integers = np.cumsum(first - end)[:length] > 0
    return found
