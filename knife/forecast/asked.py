"""The rationales whose facts are looked for in train: those of dev, or else some of train."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from knife.data.example import Example, Splits
from knife.data.subset import lot_bytes

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Asked:
    """An example whose rationale is looked at.

    Attributes:
        example: the example.
        place: its row in train if it is one of train, which does not count for itself; or else -1.
    """

    example: Example
    place: int = -1


def asked_of(splits: Splits, most: int) -> list[Asked]:
    """Return at most so many examples with a rationale, drawn by lot: of dev, or of train if no
    example of dev has one."""
    found = [Asked(example) for example in splits.dev if example.rationale]
    if not found:
        found = [Asked(e, row) for row, e in enumerate(splits.train) if e.rationale]
    return drawn(found, [each.example.id for each in found], most)


def drawn(values: Sequence[T], ids: Sequence[str], most: int) -> list[T]:
    """Return at most so many of `values`, drawn by lots on their ids, in their order."""
    if len(values) <= most:
        return list(values)
    order = sorted(range(len(values)), key=lambda row: lot_bytes(0, "forecast", ids[row]))
    return [values[row] for row in sorted(order[:most])]
