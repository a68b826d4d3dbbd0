"""What a user should know of the data before anything is trained on it."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from statistics import fmean
from typing import Any

from knife.data.example import Example, Splits
from knife.data.subset import class_names, share_choices

SHARE_WITH_RATIONALE = 0.1


@dataclass(frozen=True, slots=True)
class SplitReport:
    """What one split holds.

    Attributes:
        examples: their number.
        fewest_choices, most_choices: over the examples.
        answers: how many examples each answer has, the most frequent first: by its text where
            all examples share one set of choices, or else by its index.
        rationales: number of examples that have one.
        question_words, rationale_words: mean number of words; None where there is none.
        leakage: share of the rationales that say the answer's text, as whole words in either
            case; None without rationales, and where all examples share one set of choices (that
            a rationale says "no" tells nothing).
    """

    examples: int
    fewest_choices: int
    most_choices: int
    answers: dict[str, int]
    rationales: int
    question_words: float | None
    rationale_words: float | None
    leakage: float | None


@dataclass(frozen=True, slots=True)
class Report:
    """What the splits hold, by name, and what was decided or found on the way."""

    splits: dict[str, SplitReport]
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values, for JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The report as plain text: a paragraph a split, then the notes."""
        lines = []
        for name, split in self.splits.items():
            lines.append(f"{name}: {split.examples} examples")
            if split.examples:
                lines += [f"  {line}" for line in _lines(split)]
        return lines + [f"note: {note}" for note in self.notes]


def check(splits: Splits) -> Report:
    """Count what `splits` hold."""
    parts = {"train": splits.train, "dev": splits.dev, "test": splits.test}
    return Report(
        {name: _check_split(examples) for name, examples in parts.items()},
        list(dict.fromkeys([*splits.notes, *repeated_questions(splits)])),
    )


def repeated_questions(splits: Splits) -> list[str]:
    """A sentence for each two splits that have questions in common: same text, same choices, in
    whatever case, spacing and order of choices."""
    parts = {"train": splits.train, "dev": splits.dev, "test": splits.test}
    inputs = {name: [_task_input(example) for example in part] for name, part in parts.items()}
    notes = []
    for first, second in combinations(inputs, 2):
        known = set(inputs[first])
        count = sum(task_input in known for task_input in inputs[second])
        if count:
            total = len(inputs[second])
            notes.append(f"{count} of the {total} questions of {second} stand in {first} too")
    return notes


def rationale_faults(
    examples: Sequence[Example], method: str, share: float = SHARE_WITH_RATIONALE
) -> list[str]:
    """Why a method that learns from rationales cannot learn from these training examples, or
    nothing: fewer than `share` of them have one."""
    count = sum(example.rationale is not None for example in examples)
    if count and count >= share * len(examples):
        return []
    total = len(examples)
    have = f"only {count} of {total} ({_percent(count / total)})" if count else f"none of {total}"
    return [
        f"data: {have} training examples have a rationale, but the method {method} needs at least "
        f"{_percent(share)}: give more examples a rationale (data.source), drop fewer "
        f"(data.rationale), or leave {method} out (methods=[finetune])"
    ]


def _check_split(examples: Sequence[Example]) -> SplitReport:
    rationales = [example.rationale for example in examples if example.rationale is not None]
    numbers = [len(example.choices) for example in examples]
    leakage = None
    if rationales and not share_choices(examples):
        leakage = sum(map(_says_answer, examples)) / len(rationales)
    return SplitReport(
        examples=len(examples),
        fewest_choices=min(numbers, default=0),
        most_choices=max(numbers, default=0),
        answers=dict(Counter(class_names(examples)).most_common()),
        rationales=len(rationales),
        question_words=_mean_words([example.question for example in examples]),
        rationale_words=_mean_words(rationales),
        leakage=leakage,
    )


def _lines(split: SplitReport) -> list[str]:
    numbers = sorted({split.fewest_choices, split.most_choices})
    shares = (f"{name} {_percent(n / split.examples)}" for name, n in split.answers.items())
    lines = [
        f"choices: {' to '.join(map(str, numbers))}",
        f"answers: {', '.join(shares)}",
        f"words in a question: {split.question_words:.1f}",
        f"rationales: {split.rationales} ({_percent(split.rationales / split.examples)})",
    ]
    if split.rationale_words is not None:
        lines.append(f"words in a rationale: {split.rationale_words:.1f}")
    if split.leakage is not None:
        lines.append(f"rationales that say the answer: {_percent(split.leakage)}")
    return lines


def _task_input(example: Example) -> tuple[str, ...]:
    return (_words(example.question), *sorted(map(_words, example.choices)))


def _says_answer(example: Example) -> bool:
    """Whether the rationale has the answer's words in a row."""
    answer = f" {_bare_words(example.choices[example.answer])} "
    return bool(answer.strip()) and answer in f" {_bare_words(example.rationale or '')} "


def _words(text: str) -> str:
    return " ".join(text.casefold().split())


def _bare_words(text: str) -> str:
    """The words without the marks between them."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def _mean_words(texts: Sequence[str]) -> float | None:
    return fmean(len(text.split()) for text in texts) if texts else None


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
