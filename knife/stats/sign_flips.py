"""Exact test of paired differences, whose signs are equally likely under the null hypothesis."""

import math
from collections import Counter
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

# The share of a tie is 1/k for k choices; this bounds the denominators.
_LARGEST = 10_000
# Above this number of possible sums, the normal approximation is right to all digits shown.
_MOST_SUMS = 2**21


def sign_flips(differences_N: NDArray[np.float64]) -> float:
    """Return the two-sided probability of a sum at least this far from 0, over all sign choices.

    Fisher 1935, "The Design of Experiments", section 21; Pitman 1937. If every difference is
    -1, 0 or 1 this is McNemar's exact test, which is a binomial test.
    """
    from scipy import signal, stats

    found_N = differences_N[differences_N != 0]
    if not len(found_N):
        return 1.0
    if np.all(np.abs(found_N) == 1):
        gained = int((found_N > 0).sum())
        return float(stats.binomtest(gained, len(found_N)).pvalue)
    exact = [Fraction(float(d)).limit_denominator(_LARGEST) for d in found_N]
    total, sizes = abs(sum(exact, Fraction())), Counter(abs(each) for each in exact)
    unit = math.lcm(*(size.denominator for size in sizes))
    steps = {int(size * unit): count for size, count in sizes.items()}
    if 2 * sum(step * count for step, count in steps.items()) > _MOST_SUMS:
        spread = math.sqrt(sum(float(size) ** 2 * count for size, count in sizes.items()))
        return 2 * float(stats.norm.sf(float(total) / spread))
    # For each size, the number with sign + is binomial; sums over sizes are convolutions.
    chances = np.ones(1)
    for step, count in steps.items():
        own = np.zeros(2 * step * count + 1)
        own[:: 2 * step] = stats.binom.pmf(np.arange(count + 1), count, 0.5)
        chances = signal.convolve(chances, own)
    sums = np.abs(np.arange(len(chances)) - len(chances) // 2)
    return min(1.0, float(chances[sums >= int(total * unit)].clip(min=0).sum()))
