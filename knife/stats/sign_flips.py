"""Exact test of paired differences: under the null hypothesis each has either sign as likely."""

import math
from collections import Counter
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

# Shares of ties are 1/k, and k is a number of choices.
_LARGEST = 10_000
# From so many possible sums on, they are normal to all digits that are shown.
_MOST_SUMS = 2**21


def sign_flips(differences_N: NDArray[np.float64]) -> float:
    """Probability of a sum so far from 0, two-sided, over all choices of the signs.

    Fisher 1935, "The Design of Experiments", section 21; Pitman 1937. Where every difference is
    -1, 0 or 1 this is McNemar's exact test, which is a binomial one.
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
    # Of each size as many as have the sign +, a binomial number; sums of sizes are convolutions.
    chances = np.ones(1)
    for step, count in steps.items():
        own = np.zeros(2 * step * count + 1)
        own[:: 2 * step] = stats.binom.pmf(np.arange(count + 1), count, 0.5)
        chances = signal.convolve(chances, own)
    sums = np.abs(np.arange(len(chances)) - len(chances) // 2)
    return min(1.0, float(chances[sums >= int(total * unit)].clip(min=0).sum()))
