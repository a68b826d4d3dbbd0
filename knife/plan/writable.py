"""Finds open answers that a tokenizer cannot spell: no model can ever get these right."""

from collections.abc import Mapping, Sequence
from typing import Any

from knife.data.example import Splits
from knife.data.line_errors import show
from knife.data.tokens import Tokens
from knife.stats.text_match import exact_match

_SHOWN = 3


def unwritable_notes(
    splits: Splits, tokens: Mapping[str, Sequence[Tokens]], tokenizer: Any, model: str
) -> list[str]:
    """Return a note on each split that has such answers; none if questions have choices.

    Args:
        splits: the examples.
        tokens: those of each split.
        tokenizer: turns tokens into text.
        model: the model that the tokenizer is from, for the messages.
    """
    notes: list[str] = []
    if not splits.train[0].open:
        return notes
    for name, examples in splits.parts.items():
        own = tokens[name]
        asked = [
            (example, each)
            for example, each in zip(examples, own, strict=True)
            if each.open and each.choice_ids
        ]
        if not asked:
            continue
        texts = tokenizer.batch_decode(
            [each.choice_ids[0] for _, each in asked], skip_special_tokens=True
        )
        lost = [
            f"{example.id!r} ({show(example.choices[0])} is written as {show(text.strip())})"
            for (example, _), text in zip(asked, texts, strict=True)
            if not exact_match(text, example.choices[0])
        ]
        if lost:
            more = [f"and {len(lost) - _SHOWN} more"] if len(lost) > _SHOWN else []
            notes.append(
                f"in {len(lost)} of {len(examples)} {name} examples no generated answer can be "
                f"right, as no tokens spell it ({model}): {', '.join([*lost[:_SHOWN], *more])}"
            )
    return notes
