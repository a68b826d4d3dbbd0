"""Finds choices that a tokenizer turns into the same tokens: no model can tell them apart.

Two texts become the same tokens if the tokenizer normalises them (NFKC: `CO2` and `CO₂`; lower
case) or knows neither (two words, one unknown token each).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from knife.data.example import Example, Splits
from knife.data.line_errors import show
from knife.data.token_table import possibly_alike
from knife.data.tokens import Tokens

# Above this share of a split, its accuracy would say nothing about the model.
REFUSED_SHARE = 0.5
_SHOWN = 3


def first_alike(example: Tokens) -> list[int]:
    """Return for each choice the first one with the same tokens: its own index if it is unique.

    Tokens are compared both as an answer, which most models score, and in the list of choices in
    the task input, which encoders score.
    """
    listed = [example.input_ids[start:end] for start, end in example.choice_spans]
    found: list[int] = []
    for index, ids in enumerate(example.choice_ids):
        same = (
            other
            for other in range(index)
            if example.choice_ids[other] == ids or (listed and listed[other] == listed[index])
        )
        found.append(next((found[other] for other in same), index))
    return found


def look_for_same_tokens(
    splits: Splits, tokens: Mapping[str, Sequence[Tokens]], model: str
) -> tuple[list[str], list[str]]:
    """Return errors and notes about examples whose choices are the same tokens.

    Args:
        splits: the examples.
        tokens: those of each split.
        model: the model that the tokenizer is from, for the messages.
    """
    refused: dict[str, list[_Alike]] = {}
    notes = []
    for name, examples in splits.parts.items():
        own = tokens[name]
        alike = [
            _Alike(examples[row], group)
            for row in possibly_alike(own)
            for group in _groups(first_alike(own[row]))
        ]
        lost = [each for each in alike if each.example.answer in each.choices]
        size = len(examples)
        if len(lost) > REFUSED_SHARE * size:
            refused[f"{len(lost)} of {size} {name}"] = lost
        elif alike:
            count = len({each.example.id for each in alike})
            listed = _listed([*lost, *(each for each in alike if each not in lost)])
            notes.append(
                f"in {count} of {size} {name} examples choices become the same tokens ({model}): "
                f"{listed}{_consequence(name, len(lost))}"
            )
    if not refused:
        return [], notes
    listed = _listed([each for lost in refused.values() for each in lost])
    return [
        f"data.source: in {', '.join(refused)} examples the right choice and a wrong one become "
        f"the same tokens ({model}), so that no model can tell them apart: {listed}; give a model "
        "whose tokenizer keeps these choices apart, or write them in characters that it knows"
    ], notes


@dataclass(frozen=True, slots=True)
class _Alike:
    """Choices of an example, by index, that are the same tokens."""

    example: Example
    choices: list[int]


def _groups(first: Sequence[int]) -> Iterator[list[int]]:
    """Yield the sets of two or more choices that are the same."""
    for own in dict.fromkeys(first):
        group = [index for index, other in enumerate(first) if other == own]
        if len(group) > 1:
            yield group


def _listed(alike: Sequence[_Alike]) -> str:
    """Format the first ids with their choices, and the number of further ones."""
    said = [
        f"{each.example.id!r} ({' = '.join(show(each.example.choices[c]) for c in each.choices)})"
        for each in alike[:_SHOWN]
    ]
    more = [f"and {len(alike) - _SHOWN} more"] if len(alike) > _SHOWN else []
    return ", ".join([*said, *more])


def _consequence(split: str, lost: int) -> str:
    if not lost:
        return "; the right choice is none of them"
    if split == "train":
        return f"; in {lost} the right choice is one of them, which no model can learn"
    return f"; in {lost} the right choice is one of them: a tie of k choices counts 1/k at most"
