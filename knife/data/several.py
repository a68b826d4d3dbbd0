"""Several rationales of one question: a file of tokens for each, of which an epoch draws one.

TOKENS/train.arrow      the training examples with the first rationale of each
TOKENS/train-1.arrow    the same with the second; those that have only one, with that; and so on
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from knife.data.example import Example
from knife.data.examples import Examples
from knife.data.token_table import sequence_lengths
from knife.data.tokens import Tokens


def more_of_train(train: Sequence[Example]) -> dict[str, Examples]:
    """Return the training examples with their second rationale, with their third and so on, by the
    names of their files; empty if none has several."""
    examples = Examples.of(train)
    return {
        f"train-{number}": examples.nth_rationales(number)
        for number in range(1, examples.most_rationales)
    }


def several_files(folder: Path) -> list[Path]:
    """Return the files of tokens of further rationales, in order."""
    found = [path for path in folder.glob("train-*.arrow") if path.stem[6:].isdigit()]
    return sorted(found, key=lambda path: int(path.stem[6:]))


class Drawn(Sequence[Tokens]):
    """Training examples with one of several rationales each, drawn anew for every epoch.

    Attributes:
        tables: the examples with each of their rationales, in the same order.
        counts: how many rationales each example has: so many of the tables are drawn from.
    """

    def __init__(
        self,
        tables: Sequence[Sequence[Tokens]],
        counts: "np.ndarray[Any, Any]",
        seed: int,
    ) -> None:
        self.tables, self.counts, self._seed = tables, counts, seed
        self.draw(0)

    def draw(self, epoch: int) -> None:
        """Draw the rationales of an epoch: by seed and epoch alone, so that a training that
        resumes draws the same."""
        draw = np.random.default_rng([self._seed % 2**64, epoch])
        self._numbers = draw.integers(self.counts)

    @property
    def lengths(self) -> list[int]:
        """The most tokens of `[I ; R]` of each example, whatever is drawn."""
        each = [sequence_lengths(table, rationale=True) for table in self.tables]
        return [max(of) for of in zip(*each, strict=True)]

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.tables[0])

    @overload
    def __getitem__(self, index: int) -> Tokens: ...

    @overload
    def __getitem__(self, index: slice) -> list[Tokens]: ...

    def __getitem__(self, index: int | slice) -> Tokens | list[Tokens]:
        """Return an example with the rationale that was drawn, or those of a slice."""
        if isinstance(index, slice):
            return [self[row] for row in range(len(self))[index]]
        table: Sequence[Tokens] = self.tables[self._numbers[index]]
        return table[index]

    def __iter__(self) -> Iterator[Tokens]:
        """Yield the examples with the rationales that were drawn."""
        return (self[row] for row in range(len(self)))
