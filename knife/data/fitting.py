"""Leaves out, or cuts, and counts, examples that are too long for `data.max_tokens`."""

from collections.abc import Sequence
from typing import Any

from knife.config.run import Data
from knife.core.errors import raise_errors
from knife.data.cutting import cut_to_fit, input_lengths
from knife.data.example import Splits
from knife.data.examples import Examples
from knife.data.line_errors import shown_ids


def fitted(splits: Splits, tokenizers: Sequence[Any], data: Data) -> Splits:
    """Return the splits with what is too long for one of the models left out or cut, as
    `data.too_long` says.

    Raises:
        UserError: nothing is left of a split, or an example cannot be cut so that it fits.
    """
    if data.cut:
        return cut_to_fit(splits, tokenizers, data.max_tokens, data.cut)
    return fitting(splits, tokenizers, data.max_tokens) if data.too_long == "drop" else splits


def fitting(splits: Splits, tokenizers: Sequence[Any], max_tokens: int) -> Splits:
    """Return the splits without examples whose task input alone is longer than `max_tokens`.

    Raises:
        UserError: nothing is left of a split.
    """
    parts = splits.parts
    left_out: dict[str, int] = {}
    notes, errors = [], []
    for name, examples in splits.parts.items():
        lengths = input_lengths(examples, tokenizers)
        kept = Examples.of(examples).take([row for row, n in enumerate(lengths) if n <= max_tokens])
        if len(kept) == len(examples):
            continue
        if not kept:
            errors.append(
                f"data.too_long: drop leaves no {name} example: all {len(examples):,} task inputs "
                f"are longer than data.max_tokens={max_tokens} (the shortest has {min(lengths)})"
            )
        ids = [e.id for e, n in zip(examples, lengths, strict=True) if n > max_tokens]
        notes.append(f"{too_long_note(name, len(ids), len(kept))}: {shown_ids(ids)}")
        left_out[name] = len(ids)
        parts[name] = kept
    raise_errors(errors)
    return Splits(**parts, notes=[*splits.notes, *notes], left_out=left_out)


def too_long_note(split: str, left_out: int, kept: int) -> str:
    """State how many examples of a split are left out."""
    examples = f"{left_out:,} of {left_out + kept:,} {split} examples are left out"
    return f"{examples}, since their questions are longer than data.max_tokens (data.too_long=drop)"
