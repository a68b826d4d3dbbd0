"""Inputs other than question and rationale, for models that evaluate rationales."""

from collections.abc import Callable
from dataclasses import replace

from knife.data.example import Example, Splits

# Replaces a question that must not be seen. The choices stay, since the answer is one of them.
NO_QUESTION = "?"


def explained(splits: Splits) -> Splits:
    """Return the examples that have a rationale; a split without any is unchanged."""
    return splits.each(lambda part: [e for e in part if e.rationale is not None] or part)


def rationale_alone(splits: Splits) -> Splits:
    """Return examples with the rationale but without the question, R -> O."""
    return _each(splits, lambda example: example.rationale or "")


def vacuous_alone(splits: Splits) -> Splits:
    """Return examples with the vacuous rationale but without the question, B -> O."""
    return _each(splits, vacuous)


def vacuous_and_rationale(splits: Splits) -> Splits:
    """Return examples with both rationales but without the question, B + R -> O. The vacuous one,
    B, comes first, so that truncation removes R."""
    return _each(splits, lambda example: f"{vacuous(example)} {example.rationale or ''}".strip())


def vacuous(example: Example) -> str:
    """Return a rationale that adds no information: the question and its answer."""
    return f"{example.question} {example.choices[example.answer]}"


def _each(splits: Splits, rationale: Callable[[Example], str]) -> Splits:
    return splits.each(
        lambda part: [
            replace(e, question=NO_QUESTION, rationale=rationale(e) or None, more_rationales=())
            for e in part
        ]
    )
