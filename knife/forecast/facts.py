"""The facts that rationales state: the content words of their sentences."""

import re
from collections.abc import Iterable, Iterator
from functools import cache

from knife.compat.bm25s import stop_words
from knife.data.example import Example
from knife.data.normal import bare_words

# Content words, in the order of the text.
Fact = tuple[str, ...]

_END = re.compile(r"(?<=[.!?;])\s+|\n+")
# These say which answer is right, and nothing about the world.
_ABOUT_ANSWERS = (
    "answer answers choice choices correct correctly false hence no option right so therefore thus "
    "true wrong yes"
)
# A sentence with fewer content words relates nothing to anything.
_FEWEST = 2


def facts(rationale: str) -> list[Fact]:
    """Return the content words of each sentence that has at least two different ones.

    "So the answer is no" states no fact.
    """
    sentences = map(content_words, sentences_of(rationale))
    return [fact for fact in sentences if len(set(fact)) >= _FEWEST]


def sentences_of(text: str) -> list[str]:
    """Return the sentences of a text."""
    return _END.split(text)


def content_words(text: str) -> Fact:
    """Return the words of a text in lower case, without stop words and words about answers."""
    left_out = _left_out()
    return tuple(word for word in bare_words(text).split() if word not in left_out)


def stated(examples: Iterable[Example], owners: list[int]) -> Iterator[Fact]:
    """Yield the facts of all rationales of examples, and append the number of the example of each
    to `owners`."""
    for number, example in enumerate(examples):
        for rationale in example.rationales:
            for fact in facts(rationale):
                owners.append(number)
                yield fact


@cache
def _left_out() -> frozenset[str]:
    return stop_words() | frozenset(_ABOUT_ANSWERS.split())
