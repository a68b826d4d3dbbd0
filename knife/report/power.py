"""What differences an experiment can show, before it is made.

A difference of d is shown at 5 %, two-sided, with a power of 80 % where

    d >= (t[.975] + t[.8]) sqrt(var(a) / S + var(b) / N + var(e) / (S N))

for S seeds and N examples, in the model of `compare.spread` (Cohen 1988, "Statistical power
analysis for the behavioral sciences", section 2.4, with that model's error and its degrees of
freedom). The variances are not known before. Those assumed here were measured between knife and
finetune, a pretrained encoder on CoS-E (3 seeds, 950 questions): a quarter of the answers differ.
"""

import math
from statistics import NormalDist

from knife.words import counted

# Variance of a difference (-1, 0 or 1) over examples, over seeds, and of the rest.
EXAMPLES, SEEDS, REST = 0.115, 0.018**2, 0.138
_MOST_SEEDS, _MOST_EXAMPLES = 20, 100_000


def detectable(seeds: int, examples: int) -> float:
    """The smallest difference, in points, that so many seeds and examples show.

    With one seed the seeds' part is unknown, not 0; it is left out here as it is in the test.
    """
    rest = REST / (seeds * examples)
    over_examples = EXAMPLES / examples + rest
    over_seeds = SEEDS / seeds + rest if seeds > 1 else 0.0
    # As the test does, with the rest in both.
    variance = over_examples + over_seeds
    freedom = variance**2 / (
        over_examples**2 / max(examples - 1, 1) + over_seeds**2 / max(seeds - 1, 1)
    )
    return 100 * math.sqrt(variance) * (_t(0.975, freedom) + _t(0.8, freedom))


def enough(points: float, seeds: int) -> tuple[int, int] | None:
    """The fewest examples, and so many seeds or more, that show a difference of `points`; None
    where no reasonable number does."""
    # One seed shows nothing about seeds.
    fewest = max(seeds, 2)
    for count in range(fewest, max(fewest, _MOST_SEEDS) + 1):
        if detectable(count, _MOST_EXAMPLES) > points:
            continue
        low, high = 2, _MOST_EXAMPLES
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if detectable(count, middle) <= points else (middle + 1, high)
        return count, low
    return None


def design_note(seeds: int, examples: int, wanted: float | None) -> list[str]:
    """What the test split and the seeds of a run can show; and if that is less than the wanted
    difference in points, what would."""
    found = detectable(seeds, examples)
    said = f"{counted(seeds, 'seed')} and {examples:,} test examples"
    if wanted is None:
        return [f"{said} show differences of about {found:.1f} points or more (power 80 %)"]
    if found <= wanted:
        return []
    more = enough(wanted, seeds)
    advice = "no reasonable number of seeds and examples does"
    if more:
        count, rows = more
        advice = f"{counted(count, 'seed')} and {rows:,} test examples would"
    return [
        f"compare.difference: {said} show differences of about {found:.1f} points or more (power "
        f"80 %), not {wanted:g}; {advice}"
    ]


def _t(share: float, freedom: float) -> float:
    """Quantile of Student's t (Abramowitz and Stegun 1964, 26.7.5); scipy takes a second to import,
    which who only plans need not spend."""
    z, f = NormalDist().inv_cdf(share), max(freedom, 1.0)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / f**power for power, term in enumerate(terms, 1))
