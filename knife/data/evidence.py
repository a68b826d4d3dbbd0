"""What else than question and rationale a model may be given, to judge rationales by."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from knife.data.example import Example, Splits

# Stands where no question is to be seen. The choices stay: they are what is chosen among.
NO_QUESTION = "?"


def explained(splits: Splits) -> Splits:
    """The examples that have a rationale; a split without any stays as it is."""
    parts = (splits.train, splits.dev, splits.test)
    train, dev, test = (_explained(part) or part for part in parts)
    return Splits(train, dev, test)


def rationale_alone(splits: Splits) -> Splits:
    """The rationale without the question, R -> O."""
    return _each(splits, lambda example: example.rationale or "")


def vacuous_alone(splits: Splits) -> Splits:
    """The vacuous rationale without the question, B -> O."""
    return _each(splits, vacuous)


def vacuous_and_rationale(splits: Splits) -> Splits:
    """The vacuous rationale and the rationale without the question, B + R -> O. B stands first, so
    that where both are too long it is R that is cut."""
    return _each(splits, lambda example: f"{vacuous(example)} {example.rationale or ''}".strip())


def vacuous(example: Example) -> str:
    """A rationale that says nothing new: the question and its answer."""
    return f"{example.question} {example.choices[example.answer]}"


def _each(splits: Splits, rationale: Callable[[Example], str]) -> Splits:
    parts = (splits.train, splits.dev, splits.test)
    train, dev, test = (
        [replace(e, question=NO_QUESTION, rationale=rationale(e) or None) for e in part]
        for part in parts
    )
    return Splits(train, dev, test)


def _explained(examples: Sequence[Example]) -> list[Example]:
    return [example for example in examples if example.rationale is not None]
