"""Notes about ties: answers for which a model ranks several choices first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from knife.core.words import counted


@dataclass(frozen=True, slots=True)
class Ties:
    """The ties of one evaluation.

    Attributes:
        count: answers that are ties, of `total`.
        blind: whether all choices of every example are tied.
    """

    count: int
    total: int
    blind: bool

    @staticmethod
    def of(rows: Sequence[dict[str, Any]]) -> "Ties":
        """Count the ties in an evaluation's rows."""
        tied = [row for row in rows if "tied" in row]
        blind = len(tied) == len(rows) and all(
            len(row["tied"]) == len(row["probabilities"]) for row in tied
        )
        return Ties(len(tied), len(rows), blind)


def tie_notes(ties: Mapping[str, Sequence[Ties]]) -> list[str]:
    """Return a sentence on ties, if there are any, and one for each model that cannot tell any
    choices apart; `ties` has the evaluations of each model by name."""
    found = [
        f"{sum(each.count for each in own)} of {sum(each.total for each in own)} ({name})"
        for name, own in ties.items()
        if any(each.count for each in own)
    ]
    if not found:
        return []
    notes = [
        f"tied answers: {', '.join(found)}; of k choices tied for the first place, the right one "
        "counts 1/k."
    ]
    for name, own in ties.items():
        if blind := sum(each.blind for each in own):
            seeds = f" with {counted(blind, 'seed')}" if len(own) > 1 else ""
            notes.append(
                f"warning: {name}{seeds} cannot tell choices apart: those of every test example "
                "are tied, so its accuracy is that of guessing."
            )
    return notes
