"""Which tokens of a task input carry content: those of the words of its question and choices that
are no stop words. Words of the template, such as `choices:`, punctuation and special tokens are
none."""

import re
from collections.abc import Sequence

from knife.compat.bm25s import stop_words

Span = tuple[int, int]


def content_tokens(text: str, parts: Sequence[Span], offsets: Sequence[Span]) -> list[int]:
    """Places of the content tokens of a task input.

    `parts` are the characters of its question and choices, `offsets` the characters of each token;
    a token of several words counts if one of them does.
    """
    content = bytearray(len(text))
    for start, end in parts:
        for word in re.finditer(r"\w+(?:['\u2019]\w+)?", text[start:end]):
            if word[0].lower().replace("\u2019", "'") not in stop_words():
                first, last = start + word.start(), start + word.end()
                content[first:last] = b"\1" * (last - first)
    return [place for place, (start, end) in enumerate(offsets) if 1 in content[start:end]]
