"""Finds the content tokens of a task input: those of words in its question and choices that are not
stop words. Template words, such as `choices:`, punctuation and special tokens do not count."""

import re
from collections.abc import Sequence

from knife.compat.bm25s import stop_words

Span = tuple[int, int]


def content_tokens(text: str, parts: Sequence[Span], offsets: Sequence[Span]) -> list[int]:
    """Return the positions of the content tokens of a task input.

    `parts` are the character spans of its question and choices, `offsets` those of each token. A
    token that spans several words counts if one of them does.
    """
    content = bytearray(len(text))
    for start, end in parts:
        for word in re.finditer(r"\w+(?:['\u2019]\w+)?", text[start:end]):
            if word[0].lower().replace("\u2019", "'") not in stop_words():
                first, last = start + word.start(), start + word.end()
                content[first:last] = b"\1" * (last - first)
    return [index for index, (start, end) in enumerate(offsets) if 1 in content[start:end]]
