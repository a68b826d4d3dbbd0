"""Rationales that explain nothing or give the answer away by a letter, and repeated questions."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from knife.core.words import counted
from knife.data.example import Example
from knife.data.examples import BATCH
from knife.data.normal import bare_words, question_key

# A text that so many examples of a split have as their rationale explains none of them.
OFTEN = 5
_FEW_WORDS = 2
# "Answer: B", "the correct option is (c)", "Ans. D"; not "the answer is a bird".
_LETTER = re.compile(
    r"\b(?i:ans(?:wers?)?|options?|choices?)\b\W*(?i:(?:is|are|was)\b)?"
    r"\W*(?:\(([A-Ha-h])\)|([A-H])\b(?!['\u2019]|\s+[a-z]))"
)
_GLUED = re.compile(r"[a-z]{2}[.!?;,][A-Z][a-z]|[a-z]{2}[A-Z][a-z]{2}")
_SNIPPET = re.compile(r"https?:|www\.|\.\.\.|…")


@dataclass(frozen=True, slots=True)
class Suspicious:
    """What is suspicious in a split.

    Attributes:
        rationales: how many there are.
        empty: rationales of at most two words, or without a letter: "N/A", "-", "dummy".
        letters: rationales that name a choice by its letter, and how many of them the right one.
        glued: rationales in which words or sentences run together.
        snippets: rationales with a web address or dots for something left out.
        repeated: examples whose question and choices an earlier example has.
    """

    rationales: int
    empty: int
    letters: tuple[int, int]
    glued: int
    snippets: int
    repeated: int

    def lines(self) -> list[str]:
        """Return what was found, one line each."""
        lines = []
        for number, words in (
            (self.empty, "of one or two words, or without any"),
            (self.glued, "in which words or sentences run together"),
            (self.snippets, "with a web address or dots for what is left out"),
        ):
            if number:
                lines.append(f"rationales {words}: {number:,} ({number / self.rationales:.1%})")
        named, right = self.letters
        if named:
            lines.append(
                f"rationales that name a choice by its letter: {named:,} "
                f"({named / self.rationales:.1%}), the right one in {right / named:.0%}"
            )
        if self.repeated:
            lines.append(f"questions that an earlier example has as well: {self.repeated:,}")
        return lines


def suspicious(
    examples: Sequence[Example],
    keys: Iterable[bytes] | None = None,
    done: Callable[[int], None] = lambda _: None,
) -> Suspicious:
    """Look at the rationales and questions of a split; `keys` are those of its questions
    (`question_key`), if they are known. `done` is called with numbers of examples."""
    texts = empty = named = right = glued = snippets = 0
    for start in range(0, len(examples), BATCH):
        some = examples[start : start + BATCH]
        for example in some:
            for text in example.rationales:
                texts += 1
                empty += _says_nothing(text)
                glued += bool(_GLUED.search(text))
                snippets += bool(_SNIPPET.search(text))
                if (letter := named_letter(example, text)) is not None:
                    named += 1
                    right += letter == example.answer
        done(len(some))
    questions = set(map(question_key, examples) if keys is None else keys)
    repeated = len(examples) - len(questions)
    return Suspicious(texts, empty, (named, right), glued, snippets, repeated)


def repeated_rationales(examples: Iterable[Example]) -> Counter[str]:
    """Return the rationales that `OFTEN` examples or more have, by `same_words`, with counts."""
    counts = Counter(same_words(e.rationale) for e in examples if e.rationale is not None)
    return Counter({words: number for words, number in counts.items() if number >= OFTEN})


def repeated_lines(examples: Sequence[Example]) -> list[str]:
    """Return a line on the rationales that many examples have, or none."""
    found = repeated_rationales(examples)
    if not found:
        return []
    total = sum(example.rationale is not None for example in examples)
    ((words, times),) = found.most_common(1)
    return [
        f"rationales that {OFTEN} examples or more have: {counted(len(found), 'text')} in "
        f"{found.total():,} of {total:,} ({found.total() / total:.1%}), {words!r} in {times:,}; "
        "data.rationale=unrepeated removes them"
    ]


def same_words(text: str) -> str:
    """Return a key that is equal for rationales with the same words."""
    return bare_words(text) or text.strip()


def _says_nothing(text: str) -> bool:
    return len(text.split()) <= _FEW_WORDS or not re.search(r"[^\W\d_]", text)


def named_letter(example: Example, rationale: str) -> int | None:
    """Return the index of the choice that the rationale names last by its letter, if any."""
    found = [one or other for one, other in _LETTER.findall(rationale)]
    index = ord(found[-1].upper()) - ord("A") if found else len(example.choices)
    return index if index < len(example.choices) and not example.open else None
