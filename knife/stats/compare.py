"""Tests whether a method differs from its baseline, from paired answers to the same examples."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from knife.stats.sign_flips import sign_flips

CONFIDENCE = 0.95
POWER = 0.8
_NOTHING = 1e-24
# By number of seeds, and for more seeds: the number of examples beyond which the error of `spread`
# stops shrinking. Under the variances that `power` assumes, each further example would cost the t
# test power.
_STEADY = {2: 1_100, 3: 3_700, 4: 11_000}
_STEADY_AT_MOST = 70_000


@dataclass(frozen=True, slots=True)
class Difference:
    """A method's accuracy minus the baseline's, in points (hundredths of accuracy).

    Attributes:
        points: mean over the shared seeds and all examples.
        low, high: 95 % interval; None if the spread cannot be estimated.
        p: two-sided probability of a difference at least this large by chance; None likewise.
        p_adjusted: the same after Holm's correction for all of a verdict's comparisons.
        p_no_worse: probability of a mean at least this good by chance if the method were worse
            than the baseline by the margin. If small, it is not worse by that much.
        p_equal: the same for both sides, worse or better by the margin. If small, practically
            equal.
        detectable: the smallest difference that such an experiment shows with a power of 80 %.
        seeds: number of seeds that both methods have.
        gained, lost: answers that are right with the method and wrong with the baseline, and vice
            versa, over all seeds; with ties, those that count more or less.
        gained_ids, lost_ids: examples whose answer is gained or lost in most of the seeds.
    """

    points: float
    low: float | None
    high: float | None
    p: float | None
    seeds: int
    p_adjusted: float | None = None
    p_no_worse: float | None = None
    p_equal: float | None = None
    detectable: float | None = None
    gained: int = 0
    lost: int = 0
    gained_ids: tuple[str, ...] = ()
    lost_ids: tuple[str, ...] = ()

    @property
    def p_corrected(self) -> float | None:
        """Return the p value to show: the corrected one if there is one."""
        return self.p if self.p_adjusted is None else self.p_adjusted


@dataclass(frozen=True, slots=True)
class Spread:
    """The uncertainty of a mean over seeds and examples.

    Attributes:
        error: its standard error.
        freedom: degrees of freedom of the standard error.
    """

    error: float
    freedom: float

    def quantile(self, share: float) -> float:
        """Return the quantile of Student's t at `share`, times the error."""
        from scipy import stats

        return self.error * float(stats.t.ppf(share, self.freedom))

    def beyond(self, distance: float) -> float:
        """Return the one-sided probability that the mean is off by more than `distance`."""
        from scipy import stats

        return float(stats.t.sf(distance / self.error, self.freedom))


def spread(values_SN: NDArray[np.float64]) -> Spread | None:
    """Return the spread of the mean of `values_SN`, seeds x examples, or None if it shows none.

    A value is modelled as V[s, i] = mu + a[s] + b[i] + e[s, i] with independent effects of the
    seed s (S of them), of the example i (N of them), and of both together. The overall mean has
    the variance

        var(a) / S + var(b) / N + var(e) / (S N).

    The sample variance over examples of the means over seeds, divided by N, estimates
    A = var(b) / N + var(e) / (S N); the sample variance over seeds of the means over examples,
    divided by S, estimates B = var(a) / S + var(e) / (S N). Their sum counts the last term twice.
    Two-way clustering (Cameron, Gelbach and Miller 2011, "Robust inference with multiway
    clustering", section 2.2) would subtract it; we do not, so A + B is never too small on average.
    mean / sqrt(A + B) has approximately Satterthwaite's degrees of freedom,
    (A + B)^2 / (A^2 / (N - 1) + B^2 / (S - 1)).

    With one seed, the variance is A alone. With few seeds, B alone is too noisy a denominator: it
    has S - 1 degrees of freedom. The well-estimated A stabilises it, so A is computed as if for at
    most `steady_examples` examples, which makes the sum too large rather than too small.
    """
    seeds, examples = values_SN.shape
    if examples < 2:
        return None
    counted = steady_examples(seeds, examples)
    over_examples = float(values_SN.mean(axis=0).var(ddof=1)) / counted
    over_seeds = float(values_SN.mean(axis=1).var(ddof=1)) / seeds if seeds > 1 else 0.0
    variance = over_examples + over_seeds
    if variance < _NOTHING:
        return None
    freedom = variance**2 / (over_examples**2 / (examples - 1) + over_seeds**2 / max(seeds - 1, 1))
    return Spread(math.sqrt(variance), freedom)


def steady_examples(seeds: int, examples: int) -> int:
    """Return how many of the examples count in the error of a mean over `seeds` seeds."""
    return examples if seeds == 1 else min(examples, _STEADY.get(seeds, _STEADY_AT_MOST))


def interval(values_SN: NDArray[np.float64]) -> tuple[float, float] | None:
    """Return the 95 % interval of the mean of right (1), wrong (0) and tied answers, in 0 to 1."""
    found = spread(values_SN)
    if found is None:
        return None
    mean, reach = float(values_SN.mean()), found.quantile((1 + CONFIDENCE) / 2)
    return max(mean - reach, 0.0), min(mean + reach, 1.0)


def compare(differences_SN: NDArray[np.float64], margin: float = 2.0) -> tuple[Difference, str]:
    """Test whether paired differences are 0 on average, over both examples and seeds.

    With two seeds or more this is the t test of `spread`. With one it is McNemar's exact test
    (McNemar 1947): of the answers that differ, as many should be gained as lost; with ties, it is
    `sign_flips`, the same test for differences of other sizes. Equivalence is
    tested by two one-sided t tests (Schuirmann 1987, "A comparison of the two one-sided tests
    procedure and the power approach …"), `p_no_worse` being the one at the lower end.

    Args:
        differences_SN: seeds x examples, each -1, 0 or 1, or in between if there was a tie.
        margin: in points; smaller differences do not matter.

    Returns:
        The difference, and a note on what it does not cover, or "".
    """
    seeds, examples = differences_SN.shape
    # An exact sum, so that thirds that cancel out leave 0.
    points = 100 * (math.fsum(differences_SN.ravel()) / differences_SN.size)
    gained, lost = int((differences_SN > 0).sum()), int((differences_SN < 0).sum())
    found = spread(differences_SN)
    if found is None:
        same = not differences_SN.any() and examples > 1
        sure = 0.0 if same else None
        note = "" if same else _WITHOUT_SPREAD[examples > 1]
        p = 1.0 if same else None
        return Difference(points, sure, sure, p, seeds, gained=gained, lost=lost), note
    note = _FEW_SEEDS.get(seeds, "")
    reach = 100 * found.quantile((1 + CONFIDENCE) / 2)
    p = sign_flips(differences_SN[0]) if seeds == 1 else 2 * found.beyond(abs(points) / 100)
    no_worse = found.beyond((points + margin) / 100)
    return Difference(
        points=points,
        # No difference exceeds 100 points.
        low=max(points - reach, -100.0),
        high=min(points + reach, 100.0),
        p=p,
        seeds=seeds,
        p_no_worse=no_worse,
        p_equal=max(no_worse, found.beyond((margin - points) / 100)),
        detectable=reach + 100 * found.quantile(POWER),
        gained=gained,
        lost=lost,
    ), note


_WITHOUT_SPREAD = {
    True: "all examples differ by the same amount, so there is no spread to test against.",
    False: "one example says nothing about chance: no interval and no p value.",
}
_FEW_SEEDS = {
    1: "one seed: interval and p value cover the choice of examples, not that of the seed.",
    2: "two seeds hardly show the variance over seeds: p is too small if that is large.",
}


def holm(p: list[float]) -> list[float]:
    """Return p values after Holm's step-down correction (Holm 1979, "A simple sequentially
    rejective multiple test procedure"), in the same order."""
    adjusted, highest = [0.0] * len(p), 0.0
    for rank, index in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        highest = max(highest, min(1.0, (len(p) - rank) * p[index]))
        adjusted[index] = highest
    return adjusted
