"""From predictions to the verdict: accuracies, differences, and whether they may be chance."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Difference:
    """A method's accuracy minus the baseline's, in points (hundredths of accuracy).

    Attributes:
        points: mean over the shared seeds and all examples.
        low, high: 95 % interval; None where nothing can be said about the spread.
        p: probability of so large a difference by chance, two-sided; None likewise.
        seeds: number of seeds that both methods have.
    """

    points: float
    low: float | None
    high: float | None
    p: float | None
    seeds: int


@dataclass(frozen=True, slots=True)
class MethodVerdict:
    """What is known of one method.

    Attributes:
        method: its name.
        accuracy: mean over seeds, from 0 to 1.
        sd: standard deviation over seeds (ddof 1); None with one seed.
        seeds, examples: how many.
        difference: to the baseline; None for the baseline itself, or where there is none.
    """

    method: str
    accuracy: float
    sd: float | None
    seeds: int
    examples: int
    difference: Difference | None


@dataclass(frozen=True, slots=True)
class Ceiling:
    """The teacher's accuracy, from 0 to 1, with the rationale and without it; None: unknown."""

    with_rationale: float | None
    without_rationale: float | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict of a run.

    Attributes:
        baseline: the method that differences are to.
        methods: in the order of the predictions.
        ceiling: the teacher's, where it is known.
        notes: what a reader has to know, one sentence each.
    """

    baseline: str
    methods: tuple[MethodVerdict, ...]
    ceiling: Ceiling | None
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain mappings, lists and numbers, ready for JSON."""
        values = dataclasses.asdict(self)
        return values | {"methods": list(values["methods"]), "notes": list(values["notes"])}

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "Verdict":
        """Read what `to_dict` made, from JSON too."""
        return TypeAdapter(Verdict).validate_python(values)


def verdict(
    predictions: dict[str, dict[int, dict[str, bool]]],
    baseline: str = "finetune",
    ceiling: Ceiling | None = None,
) -> Verdict:
    """Compare methods on the same examples.

    Args:
        predictions: method -> seed -> example id -> right or wrong. Every method and seed has the
            same example ids; a method shares at least one seed with the baseline.
        baseline: the method to compare with; where it is missing there are no differences.
        ceiling: the teacher's accuracies.
    """
    assert predictions
    ids = sorted(next(iter(next(iter(predictions.values())).values())))
    tables = {method: _table(by_seed, ids) for method, by_seed in predictions.items()}
    notes = []
    methods = []
    for method, right_SN in tables.items():
        accuracies_S = right_SN.mean(axis=1)
        sd = float(accuracies_S.std(ddof=1)) if len(accuracies_S) > 1 else None
        difference = None
        if method != baseline and baseline in tables:
            seeds = sorted(set(predictions[method]) & set(predictions[baseline]))
            assert seeds, f"{method} and {baseline} share no seed"
            rows = _rows(predictions[method], seeds), _rows(predictions[baseline], seeds)
            difference, note = compare(right_SN[rows[0]] - tables[baseline][rows[1]])
            notes += [f"{method}: {note}"] if note else []
        methods.append(
            MethodVerdict(
                method, float(accuracies_S.mean()), sd, len(right_SN), len(ids), difference
            )
        )
    compared = sum(method.difference is not None for method in methods)
    if baseline not in tables:
        notes.append(f"{baseline} is not among the methods, so there is nothing to compare with.")
    if compared > 1:
        notes.append(f"The p values are not adjusted for there being {compared} comparisons.")
    return Verdict(baseline, tuple(methods), ceiling, tuple(notes))


def compare(differences_SN: NDArray[np.float64]) -> tuple[Difference, str]:
    """Test whether paired differences are 0 on average, over examples and seeds alike.

    A difference is modelled as D[s, i] = mu + a[s] + b[i] + e[s, i] with independent effects of
    the seed s (S of them), of the example i (N of them), and of both together. The mean of all
    has the variance

        var(a) / S + var(b) / N + var(e) / (S N).

    The sample variance over examples of the means over seeds, over N, estimates
    A = var(b) / N + var(e) / (S N); the sample variance over seeds of the means over examples,
    over S, estimates B = var(a) / S + var(e) / (S N). Their sum holds the last term once too often.
    Two-way clustering (Cameron, Gelbach and Miller 2011, "Robust inference with multiway
    clustering", section 2.2) would subtract it; we do not, so A + B is never too small on average
    and the test is conservative. The t statistic mean / sqrt(A + B) has about Satterthwaite's
    degrees of freedom, (A + B)^2 / (A^2 / (N - 1) + B^2 / (S - 1)).

    Few seeds cannot show how much seeds differ. Simulated without a difference (400 examples), p is
    below 0.05 in 1 to 2 % of experiments where seeds do not matter, and where they matter more
    than all else in 12 % with two seeds, 7 % with three, 5 % with five or ten.

    Args:
        differences_SN: seeds x examples, each -1, 0 or 1.

    Returns:
        The difference, and a note on what it does not cover (empty where there is none). With
        one seed the test is over examples alone (the one-sample t test).
    """
    # Takes a second to import, and whoever only plans a run needs none of it.
    from scipy import stats

    seeds, examples = differences_SN.shape
    mean = float(differences_SN.mean())
    points = 100 * mean
    if not differences_SN.any():
        return Difference(0.0, 0.0, 0.0, 1.0, seeds), ""
    if examples < 2:
        note = "one example says nothing about chance: no interval and no p value."
        return Difference(points, None, None, None, seeds), note
    note = ""
    over_examples = float(differences_SN.mean(axis=0).var(ddof=1)) / examples
    over_seeds = 0.0
    if seeds > 1:
        over_seeds = float(differences_SN.mean(axis=1).var(ddof=1)) / seeds
    if seeds == 2:
        note = "two seeds hardly show how much seeds differ: p is too small where they differ much."
    elif seeds == 1:
        note = "one seed: interval and p value cover the choice of examples alone, not the seed's."
    variance = over_examples + over_seeds
    if variance < 1e-24:
        note = "all examples differ alike, so there is no spread to test against."
        return Difference(points, None, None, None, seeds), note
    freedom = variance**2 / (over_examples**2 / (examples - 1) + over_seeds**2 / max(seeds - 1, 1))
    error = math.sqrt(variance)
    p = float(2 * stats.t.sf(abs(mean) / error, freedom))
    reach = 100 * error * float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom))
    # No difference lies beyond 100 points.
    low, high = max(points - reach, -100.0), min(points + reach, 100.0)
    return Difference(points, low, high, p, seeds), note


def _table(by_seed: dict[int, dict[str, bool]], ids: list[str]) -> NDArray[np.float64]:
    """Right (1) or wrong (0), seeds in ascending order x examples in the order of `ids`."""
    assert ids
    for right in by_seed.values():
        assert right.keys() == set(ids), "methods and seeds must have the same examples"
    return np.array([[by_seed[seed][id_] for id_ in ids] for seed in sorted(by_seed)], dtype=float)


def _rows(by_seed: dict[int, dict[str, bool]], seeds: list[int]) -> list[int]:
    """Rows of `_table` that belong to `seeds`."""
    order = sorted(by_seed)
    return [order.index(seed) for seed in seeds]
