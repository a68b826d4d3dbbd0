"""Rationales without the words that give the answer away (`data.rationale=unleaked:SHARE`).

In the manner of RORA (Jiang et al. 2024, arXiv 2402.18678), where a small network finds such words;
here a regression does. Where all questions share their choices, words are masked that tell which
one is right. Where choices differ, those that the example's own choices have are masked, and then
those that begin like one of them: of all choices, so that masks do not tell the answer.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from knife.compat.bm25s import stop_words
from knife.core.errors import UserError
from knife.core.words import counted, in_percent
from knife.data.example import Example
from knife.data.leaks import RationaleOnly, rationale_only, telling_words
from knife.data.normal import bare_words
from knife.data.subset import lot_bytes, share_choices

MASK = "_"
# So many rationales decide which words are masked.
_MOST = 5_000
# Words of different forms have this in common.
_BEGINNING = 4
# An accuracy so many standard errors above what is allowed is hardly chance.
_SURE = 2.0
_WORD = re.compile(r"\w+")

# For an example: whether a word, in lower case, of its rationale is masked.
Masked = Callable[[Example], Callable[[str], bool]]
# What is masked, in words; the same as a function; the examples with these masks.
Step = tuple[str, Masked, list[Example]]


def unleaked(train: Sequence[Example], share: float, seed: int) -> tuple[Masked, str]:
    """Return which words of rationales to mask, and a sentence on them.

    Rationales of train decide, and no more is masked than needed: until a regression on rationales
    alone finds at most `share` of the answers that guessing does not find, but for chance.

    Raises:
        UserError: answers are open, or too few for a regression.
    """
    few = [example for example in train if example.rationale]
    few = sorted(few, key=lambda example: lot_bytes(seed, "unleaked", example.id))[:_MOST]
    before = rationale_only(few)
    if before is None:
        raise UserError(
            "data.rationale: unleaked needs choices, and at least five rationales for each answer, "
            "to see which words give answers away; leave it out, or use truncated:SHARE"
        )
    found, left, words, masked = before, few, "no words", _always(())
    steps = _telling(few) if share_choices(few) else _own(few)
    while _leaks(found, share) and (step := next(steps, None)):
        words, masked, left = step
        found = rationale_only(left) or found
    changed = sum(one.rationale != other.rationale for one, other in zip(few, left, strict=True))
    return masked, (
        f"data.rationale=unleaked masks {words}, in {changed:,} of {len(few):,} rationales of "
        f"train: they alone tell {in_percent(found.accuracy)} of the answers now, "
        f"{in_percent(before.accuracy)} before (guessing {in_percent(found.chance)})"
    )


def mask(example: Example, masked: Masked) -> str | None:
    """Return an example's rationale with `MASK` in place of the words to mask."""
    if example.rationale is None:
        return None
    of = masked(example)
    return _WORD.sub(lambda w: MASK if of(w[0].casefold()) else w[0], example.rationale)


def _leaks(found: RationaleOnly, share: float) -> bool:
    allowed = found.chance + share * (1 - found.chance)
    error = math.sqrt(found.chance * (1 - found.chance) / found.examples)
    return found.accuracy > allowed + _SURE * error


def _always(words: Iterable[str]) -> Masked:
    known = frozenset(words)
    return lambda _example: known.__contains__


def _all_masked(examples: Sequence[Example], masked: Masked) -> list[Example]:
    return [replace(example, rationale=mask(example, masked)) for example in examples]


def _telling(examples: Sequence[Example]) -> Iterator[Step]:
    """Yield more and more words that tell the answer, each time twice as many and one more."""
    told: list[str] = []
    left = list(examples)
    while words := telling_words(left, without={*told, MASK})[: len(told) + 1]:
        told += words
        masked = _always(told)
        left = _all_masked(examples, masked)
        more = ", …" * (len(told) > 10)
        yield f"{', '.join(told[:10])}{more} ({counted(len(told), 'word')})", masked, left


def _own(examples: Sequence[Example]) -> Iterator[Step]:
    """Yield the words of an example's own choices, and then also those that begin alike."""
    for words, masked in (
        ("the words of a question's choices", _its_choices),
        ("the words of a question's choices and those that begin alike", _alike),
    ):
        yield words, masked, _all_masked(examples, masked)


def _its_choices(example: Example) -> Callable[[str], bool]:
    return choice_words(example).__contains__


def choice_words(example: Example) -> frozenset[str]:
    """Return the content words of an example's choices; all words of a choice without these."""
    found: set[str] = set()
    for choice in example.choices:
        words = set(bare_words(choice).split())
        found |= words - stop_words() or words
    return frozenset(found)


def _alike(example: Example) -> Callable[[str], bool]:
    words = choice_words(example)
    beginnings = {word[:_BEGINNING] for word in words if len(word) >= _BEGINNING}
    return lambda word: word in words or word[:_BEGINNING] in beginnings
