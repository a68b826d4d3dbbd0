"""What a user should know about the data before anything is trained on it."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import fmean

from knife.core.garbage import no_search_for_cycles
from knife.core.words import in_percent
from knife.data.example import Example, Splits
from knife.data.examples import explained_count, values_of
from knife.data.leaks import RationaleOnly, rationale_only
from knife.data.near import NearDuplicates, near_duplicates
from knife.data.normal import bare_words, question_key
from knife.data.subset import class_names, lot_bytes, share_choices
from knife.data.suspicious import Suspicious, repeated_lines, suspicious

SHARE_WITH_RATIONALE = 0.1
# So few answers may be in one place by chance.
_FEW = 20
_QUANTILES = (0.05, 0.5, 0.95, 1)
# From so many rationales on, a classifier is trained on some of them.
_MOST = 20_000
# Shows work in a few words and the number of questions that it is on; yields what is called with
# the numbers of those done.
Show = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


@dataclass(frozen=True, slots=True)
class Words:
    """Word counts of texts: the mean, the 5 %, 50 % and 95 % quantiles, and the maximum."""

    mean: float
    low: int
    median: int
    high: int
    most: int

    def __str__(self) -> str:
        """Format them for a user."""
        return (
            f"{self.mean:.1f} (5 % of them at most {self.low}, half {self.median}, "
            f"95 % {self.high}, all {self.most})"
        )


@dataclass(frozen=True, slots=True)
class SplitReport:
    """The contents of one split.

    Attributes:
        examples: their number.
        open: whether the answers are free text.
        fewest_choices, most_choices: over the examples; 0 if answers are open.
        answers: number of examples per answer, the most frequent first: by its text if all
            examples share one set of choices or answers are open, or else by its index.
        rationales: number of examples that have one.
        several: number of examples that have more than one.
        question_words, rationale_words: their word counts; None if there are no such texts.
        leakage: share of the rationales that contain the answer's text, as whole words in either
            case; None without rationales, and if all examples share one set of choices (a
            rationale that contains "no" shows nothing).
        suspicious: rationales that explain nothing or say a letter, and repeated questions.
    """

    examples: int
    open: bool
    fewest_choices: int
    most_choices: int
    answers: dict[str, int]
    rationales: int
    several: int
    question_words: Words | None
    rationale_words: Words | None
    leakage: float | None
    suspicious: Suspicious


@dataclass(frozen=True, slots=True)
class Report:
    """The contents of the splits, by name, and notes on decisions and findings.

    Attributes:
        splits: train, dev and test.
        rationale_only: what a cheap model predicts from the rationales of train alone; None if
            there are too few, or answers are open.
        near_duplicates: of train, in dev and in test.
        notes: one sentence each.
    """

    splits: dict[str, SplitReport]
    rationale_only: RationaleOnly | None
    near_duplicates: dict[str, NearDuplicates]
    notes: list[str]

    def lines(self) -> list[str]:
        """Return the report as plain text: a paragraph per split, then the notes."""
        lines = []
        for name, split in self.splits.items():
            lines.append(f"{name}: {split.examples} examples")
            if split.examples:
                lines += [f"  {line}" for line in _lines(split)]
            if name == "train" and self.rationale_only:
                only = self.rationale_only
                lines.append(
                    f"  answers predicted from the rationale alone: {in_percent(only.accuracy)} "
                    f"(chance: {in_percent(only.chance)}{_of_fewer(only, split)})"
                )
            if name in self.near_duplicates and split.examples:
                lines += _near_lines(self.near_duplicates[name], split.examples)
        return lines + [f"note: {note}" for note in self.notes]


@contextmanager
def _silent(words: str, total: int) -> Iterator[Callable[[int], None]]:  # noqa: ARG001
    yield lambda _: None


def check(splits: Splits, show: Show = _silent) -> Report:
    """Report on the contents of `splits`, and `show` the progress of the work."""
    with no_search_for_cycles():
        train, dev, test = map(list, splits.parts.values())
        splits = replace(splits, train=train, dev=dev, test=test)
        keys, reports = dict[str, list[bytes]](), dict[str, SplitReport]()
        with show("checking", len(train) + len(dev) + len(test)) as count:
            for name, examples in splits.parts.items():
                keys[name] = list(map(question_key, examples))
                reports[name] = check_split(examples, keys[name], count)
            findings = _findings(splits, keys)
            only = rationale_only(_drawn(train))
        with show("looking for near-duplicates", len(dev) + len(test)) as count:
            near = near_duplicates(train, {"dev": dev, "test": test}, done=count)
    return Report(reports, only, near, list(dict.fromkeys([*splits.notes, *findings])))


def _drawn(train: Sequence[Example]) -> Sequence[Example]:
    """Return at most `_MOST` examples, drawn by lot: more would change the share of a classifier's
    right answers by less than a point."""
    if len(train) <= _MOST:
        return train
    return sorted(train, key=lambda example: lot_bytes(0, "check", example.id))[:_MOST]


def _findings(splits: Splits, keys: Mapping[str, Sequence[bytes]]) -> list[str]:
    """Return a sentence for each thing that a user should know about splits together."""
    found = [*_repeated(keys), *shared_groups(splits)]
    found += repeated_lines(splits.everything)
    places = {example.answer for example in splits.train}
    if len(places) == 1 and len(splits.train) >= _FEW and not splits.train[0].open:
        place = places.pop() + 1
        found.append(
            f"every answer of train is choice {place}: a model could learn the place alone"
        )
    return found


def repeated_questions(splits: Splits) -> list[str]:
    """Return a sentence for each pair of splits with common questions: same text and choices,
    ignoring case, spacing and order of choices."""
    return _repeated({name: map(question_key, part) for name, part in splits.parts.items()})


def _repeated(keys: Mapping[str, Iterable[bytes]]) -> list[str]:
    asked = {name: Counter(keys[name]) for name in ("dev", "test")}
    either = asked["dev"].keys() | asked["test"].keys()
    # Train may be far larger: only what the others have too is kept of it.
    found = {"train": {key for key in keys["train"] if key in either}}
    found["dev"] = set(asked["dev"])
    notes = []
    for first, second in combinations(keys, 2):
        count = sum(asked[second][key] for key in found[first])
        if count:
            total = asked[second].total()
            notes.append(f"{count} of the {total} questions of {second} are also in {first}")
    return notes


def shared_groups(splits: Splits) -> list[str]:
    """Return a sentence for each pair of splits with common groups."""
    groups = {name: {*values_of(part, "group")} - {None} for name, part in splits.parts.items()}
    return [
        f"{len(common):,} of the {len(groups[second]):,} groups of {second} are also in {first}"
        for first, second in combinations(groups, 2)
        if (common := groups[first] & groups[second])
    ]


def rationale_errors(
    examples: Sequence[Example], method: str, share: float = SHARE_WITH_RATIONALE
) -> list[str]:
    """Return the error if fewer than `share` of the training examples have a rationale, which is
    too few for a method that learns from rationales."""
    count = explained_count(examples)
    if count and count >= share * len(examples):
        return []
    total = len(examples)
    have = f"only {count} of {total} ({in_percent(count / total)})" if count else f"none of {total}"
    return [
        f"data: {have} training examples have a rationale, but the method {method} needs at least "
        f"{in_percent(share)}: give more examples a rationale (data.source), drop fewer "
        f"(data.rationale), or leave {method} out (methods=[finetune])"
    ]


def check_split(
    examples: Sequence[Example],
    keys: Iterable[bytes] | None = None,
    done: Callable[[int], None] = lambda _: None,
) -> SplitReport:
    """Report on the contents of one split; `keys` and `done` are as for `suspicious`."""
    explained = [example for example in examples if example.rationale is not None]
    texts = [text for each in explained for text in each.rationales]
    opened = any(example.open for example in examples)
    numbers = [] if opened else [len(example.choices) for example in examples]
    names = [e.choices[e.answer] for e in examples] if opened else class_names(examples)
    leakage = None
    if texts and (opened or not share_choices(examples)):
        said = (replace(each, rationale=text) for each in explained for text in each.rationales)
        leakage = sum(map(says_answer, said)) / len(texts)
    return SplitReport(
        examples=len(examples),
        open=opened,
        fewest_choices=min(numbers, default=0),
        most_choices=max(numbers, default=0),
        answers=dict(Counter(names).most_common()),
        rationales=len(explained),
        several=sum(bool(example.more_rationales) for example in examples),
        question_words=_word_counts([example.question for example in examples]),
        rationale_words=_word_counts(texts),
        leakage=leakage,
        suspicious=suspicious(examples, keys, done),
    )


def _lines(split: SplitReport) -> list[str]:
    lines = _open_lines(split) if split.open else _choice_lines(split)
    lines += [
        f"words in a question: {split.question_words}",
        f"rationales: {split.rationales} ({in_percent(split.rationales / split.examples)})",
    ]
    if split.several:
        lines.append(f"examples with several rationales: {split.several}")
    if split.rationale_words is not None:
        lines.append(f"words in a rationale: {split.rationale_words}")
    if split.leakage is not None:
        lines.append(f"rationales that contain the answer: {in_percent(split.leakage)}")
    return lines + split.suspicious.lines()


def _open_lines(split: SplitReport) -> list[str]:
    answer, number = next(iter(split.answers.items()))
    share = in_percent(number / split.examples)
    return [f"open answers: {len(split.answers)} different, {share} of them {answer!r}"]


def _choice_lines(split: SplitReport) -> list[str]:
    numbers = sorted({split.fewest_choices, split.most_choices})
    shares = (f"{name} {in_percent(n / split.examples)}" for name, n in split.answers.items())
    return [f"choices: {' to '.join(map(str, numbers))}", f"answers: {', '.join(shares)}"]


def _of_fewer(only: RationaleOnly, split: SplitReport) -> str:
    drawn = split.examples > _MOST
    return f"; {only.examples:,} of {split.rationales:,} rationales, drawn by lot" * drawn


def _near_lines(near: NearDuplicates, total: int) -> list[str]:
    lines = [
        f"  near-duplicates in train: {near.count} of {total} questions "
        f"(similarity {near.threshold:g} or more)"
    ]
    if near.count:
        own, other = (
            f"{text!r} ({name})" for text, name in zip(near.questions, near.ids, strict=True)
        )
        lines.append(f"    the nearest, {near.similarity:.2f}: {own} and {other} of train")
    return lines


def says_answer(example: Example) -> bool:
    """Whether the rationale contains the answer's words in sequence."""
    answer = f" {bare_words(example.choices[example.answer])} "
    return bool(answer.strip()) and answer in f" {bare_words(example.rationale or '')} "


def _word_counts(texts: Sequence[str]) -> Words | None:
    if not texts:
        return None
    counts = sorted(len(text.split()) for text in texts)
    # The smallest count that this share of the texts does not exceed.
    found = (counts[math.ceil(share * len(counts)) - 1] for share in _QUANTILES)
    return Words(fmean(counts), *found)
