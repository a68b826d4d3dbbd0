"""From predictions to the verdict: accuracies, differences, and whether these may be chance."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from knife.stats.compare import Difference, compare, holm, interval


@dataclass(frozen=True, slots=True)
class MethodVerdict:
    """The results of one method.

    Attributes:
        method: its name.
        accuracy: mean over seeds, from 0 to 1.
        low, high: 95 % interval of that over seeds and examples; None if there is no spread.
        sd: standard deviation over seeds (ddof 1); None with one seed.
        seeds, examples: their numbers.
        difference: to the baseline; None for the baseline itself, or without one.
    """

    method: str
    accuracy: float
    low: float | None
    high: float | None
    sd: float | None
    seeds: int
    examples: int
    difference: Difference | None


@dataclass(frozen=True, slots=True)
class Ceiling:
    """The teacher's accuracy, from 0 to 1, with and without the rationale; None if unknown."""

    with_rationale: float | None
    without_rationale: float | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict of a run.

    Attributes:
        baseline: the method that the others are compared with.
        margin: in points; a smaller difference does not matter.
        methods: in the order of the predictions.
        ceiling: the teacher's accuracies, if known.
        notes: what a reader needs to know, one sentence each.
    """

    baseline: str
    margin: float
    methods: tuple[MethodVerdict, ...]
    ceiling: Ceiling | None
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain mappings, lists and numbers for JSON."""
        values: dict[str, Any] = TypeAdapter(Verdict).dump_python(self, mode="json")
        return values

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "Verdict":
        """Read the output of `to_dict`, also after a round trip through JSON."""
        return TypeAdapter(Verdict).validate_python(values)


def baseline_of(wanted: str | None, methods: Iterable[str]) -> str:
    """Return the method to compare with: `wanted` if given, else finetune, else the first one."""
    names = list(methods)
    return wanted or ("finetune" if "finetune" in names else names[0])


def verdict(
    predictions: Mapping[str, Mapping[int, Mapping[str, float]]],
    baseline: str = "finetune",
    ceiling: Ceiling | None = None,
    margin: float = 2.0,
    ties: Sequence[str] = (),
) -> Verdict:
    """Compare methods on the same examples. The p values are corrected for all comparisons.

    Args:
        predictions: method -> seed -> example id -> right (1), wrong (0), or the share of a tie.
            Every method and seed has the same example ids; a method shares at least one seed with
            the baseline.
        baseline: the method to compare with; if it is missing there are no differences.
        ceiling: the teacher's accuracies.
        margin: in points; a smaller difference does not matter.
        ties: notes on ties, which come first.

    Raises:
        ValueError: the predictions are for different examples, or share no seed.
    """
    assert predictions
    ids = sorted(next(iter(next(iter(predictions.values())).values())))
    tables = {method: _table(by_seed, ids) for method, by_seed in predictions.items()}
    notes = list(ties)
    methods = []
    uncovered: dict[str, list[str]] = {}
    for method, right_SN in tables.items():
        accuracies_S = right_SN.mean(axis=1)
        sd = float(accuracies_S.std(ddof=1)) if len(accuracies_S) > 1 else None
        low, high = interval(right_SN) or (None, None)
        difference = None
        if method != baseline and baseline in tables:
            difference, note = _difference(predictions[method], predictions[baseline], ids, margin)
            uncovered.setdefault(note, []).append(method)
        mean = float(accuracies_S.mean())
        seeds, examples = right_SN.shape
        methods.append(MethodVerdict(method, mean, low, high, sd, seeds, examples, difference))
    for note, names in uncovered.items():
        everybody = 1 < len(names) == len(tables) - 1
        notes += [f"{'all methods' if everybody else ', '.join(names)}: {note}"] if note else []
    if baseline not in tables:
        notes.append(f"{baseline} is not among the methods, so there is nothing to compare with.")
    compared = [m for m in methods if m.difference and m.difference.p is not None]
    raw = [m.difference.p for m in compared if m.difference and m.difference.p is not None]
    for method_verdict, p in zip(compared, holm(raw), strict=True):
        assert method_verdict.difference
        adjusted = replace(method_verdict.difference, p_adjusted=p)
        index = methods.index(method_verdict)
        methods[index] = replace(method_verdict, difference=adjusted)
    if len(compared) > 1:
        notes.append(f"The p values are corrected for {len(compared)} comparisons (Holm).")
    return Verdict(baseline, margin, tuple(methods), ceiling, tuple(notes))


def _difference(
    own: Mapping[int, Mapping[str, float]],
    base: Mapping[int, Mapping[str, float]],
    ids: list[str],
    margin: float,
) -> tuple[Difference, str]:
    seeds = sorted(set(own) & set(base))
    if not seeds:
        raise ValueError("a method and its baseline share no seed")
    tables = [_table({seed: by_seed[seed] for seed in seeds}, ids) for by_seed in (own, base)]
    differences_SN = tables[0] - tables[1]
    difference, note = compare(differences_SN, margin)
    most_N = np.sign(differences_SN).mean(axis=0)
    gained, lost = (
        tuple(ids[index] for index in np.flatnonzero(sign * most_N > 0.5)) for sign in (1, -1)
    )
    return replace(difference, gained_ids=gained, lost_ids=lost), note


def _table(by_seed: Mapping[int, Mapping[str, float]], ids: list[str]) -> NDArray[np.float64]:
    """Return the score of each answer, seeds in ascending order x examples in order of `ids`."""
    assert ids
    for right in by_seed.values():
        if right.keys() != set(ids):
            raise ValueError("methods and seeds must have the same examples")
    return np.array([[by_seed[seed][id_] for id_ in ids] for seed in sorted(by_seed)], dtype=float)
