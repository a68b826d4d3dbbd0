"""Rows that are left out because something is wrong with them (`data.faulty`)."""

from collections import Counter

from knife.data.line_errors import shown_ids


class LeftOut:
    """Counts rows that are left out, by reason; `unit` is what they are, such as `row`."""

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._reasons: Counter[str] = Counter()
        self._names: list[str] = []

    @property
    def total(self) -> int:
        """How many there are."""
        return self._reasons.total()

    def add(self, number: int, identity: str, reason: str) -> None:
        """Count a row, by its number and, if it has one, its id."""
        self._reasons[reason] += 1
        self._names.append(identity or f"{self._unit} {number}")

    def note(self, kept: int) -> str:
        """Return what was left out beside the rows that are kept."""
        if not kept:
            start = f"all {self.total:,} {self._unit}s are faulty"
        else:
            start = f"{self.total:,} of {self.total + kept:,} {self._unit}s are left out"
        counts = ", ".join(f"{n:,} with {reason}" for reason, n in self._reasons.most_common())
        return f"{start}: {counts} ({shown_ids(self._names)})"

    def too_many(self, kept: int, share: float) -> str:
        """Return the error if more are faulty than may be."""
        whole = self.total + kept
        return (
            f"{self.total:,} of {whole:,} {self._unit}s are faulty ({self.total / whole:.1%}), "
            f"more than may be left out ({share:.1%}; data.faulty=skip:SHARE raises that)"
        )
