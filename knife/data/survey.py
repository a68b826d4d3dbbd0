"""Findings that need a whole file: fields that are not read, equal choices, indices from 1."""

from collections import Counter

from knife.core.words import counted
from knife.data.example import Example
from knife.data.fields import likely_field, unread

# Warn if the probability that no answer has index 0, with uniform indices, is below this.
_UNLIKELY = 1e-3


class Survey:
    """Collects notes for the user from all records of a file."""

    def __init__(self) -> None:
        self._unread: Counter[str] = Counter()
        self._merged = 0
        self._indices = 0
        self._from_zero = False
        self._chance = 1.0

    def see(self, record: object, example: Example) -> None:
        """Record the findings in a record and the example that was read from it."""
        assert isinstance(record, dict)
        self._unread.update(unread(record))
        if example.open:
            return
        self._merged += len(example.choices) < len(record["choices"])
        if isinstance(record["answer"], int):
            self._indices += 1
            self._from_zero |= record["answer"] == 0
            self._chance *= 1 - 1 / len(example.choices)

    def notes(self) -> list[str]:
        """Return the notes, one sentence each."""
        found = []
        if self._unread:
            fields = ", ".join(f"{_named(name)} ({n:,})" for name, n in self._unread.most_common())
            found.append(f"fields that are not read, and in how many examples: {fields}")
        if self._merged:
            found.append(f"equal wrong choices were merged in {counted(self._merged, 'example')}")
        if self._indices and not self._from_zero and self._chance < _UNLIKELY:
            found.append(
                f"none of the {self._indices:,} answers that are an index is 0: indices count from "
                "0; check that these do not count from 1"
            )
        return found


def _named(name: str) -> str:
    known = likely_field(name)
    return f"{name} [like {known}]" if known else name
