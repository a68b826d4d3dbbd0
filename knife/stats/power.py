"""What differences an experiment can show, before it is made.

A difference of d is shown at 5 %, two-sided, with a power of 80 % where

    d >= (t[.975] + t[.8]) sqrt(var(a) / S + var(b) / N + var(e) / (S N))

for S seeds and N examples, in the model of `compare.spread` (Cohen 1988, "Statistical power
analysis for the behavioral sciences", section 2.4, with that model's error and its degrees of
freedom). The variances are not known before. Those assumed here were measured between knife and
finetune, a pretrained encoder on CoS-E (3 seeds, 950 questions): a quarter of the answers differ.
"""

import math

from knife.core.words import counted
from knife.stats.compare import CONFIDENCE, POWER, steady_examples

# Variance of a difference (-1, 0 or 1) over examples, over seeds, and of the rest.
EXAMPLES, SEEDS, REST = 0.115, 0.018**2, 0.138
_MOST_SEEDS, _MOST_EXAMPLES = 20, 100_000


def detectable(seeds: int, examples: int) -> float:
    """The smallest difference between methods, in points, that so many seeds and examples show.

    More seeds or examples never show less. One seed shows nothing about methods (infinity): a
    difference may be the seed's. Nor does one example, and no difference exceeds 100 points.
    """
    if seeds == 1 or examples == 1:
        return math.inf
    steady = steady_examples(seeds, examples)
    over_examples = EXAMPLES / steady + REST / (seeds * steady)
    # As the test does, with the rest in both.
    over_seeds = SEEDS / seeds + REST / (seeds * examples)
    return _shown(over_examples, examples, over_seeds, seeds)


def detectable_between_students(examples: int) -> float:
    """The smallest difference, in points, that the examples show between two trained students."""
    return _shown(EXAMPLES / examples + REST / examples, examples, 0.0, 1)


def enough(points: float, seeds: int, examples: int = 2) -> tuple[int, int] | None:
    """The fewest seeds, `seeds` or more, and for these the fewest examples, `examples` or more,
    that show a difference of `points`; None where no reasonable number does."""
    for count in range(seeds, max(seeds, _MOST_SEEDS) + 1):
        low, high = examples, max(examples, _MOST_EXAMPLES)
        if detectable(count, high) > points:
            continue
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if detectable(count, middle) <= points else (middle + 1, high)
        return count, low
    return None


def design_note(seeds: int, examples: int, wanted: float | None) -> list[str]:
    """What the test split and the seeds of a run can show; and if that is less than the wanted
    difference in points, what would."""
    if examples == 1:
        said = "one test example shows no differences"
        if wanted is None:
            return [said]
        return [f"compare.difference: {said}; {_advice(seeds, examples, wanted)}"]
    found, whom = detectable(seeds, examples), ""
    if seeds == 1:
        found, whom = detectable_between_students(examples), " between these very students"
    said = f"{counted(seeds, 'seed')} and {examples:,} test examples show differences of about "
    said += f"{found:.1f} points or more{whom} (power 80 %)"
    alone = "one seed shows nothing about the methods themselves"
    if wanted is None:
        return [f"{said}; {alone}" if seeds == 1 else said]
    if seeds > 1 and found <= wanted:
        return []
    lacking = f", not {wanted:g}" if found > wanted else ""
    lacking += f"; {alone}" if seeds == 1 else ""
    return [f"compare.difference: {said}{lacking}; {_advice(seeds, examples, wanted)}"]


def _advice(seeds: int, examples: int, wanted: float) -> str:
    """What would show the wanted difference: more seeds, or more examples, or else both."""
    ways = []
    more_seeds = next(
        (s for s in range(seeds, _MOST_SEEDS + 1) if detectable(s, examples) <= wanted), None
    )
    if more_seeds:
        ways.append(f"{more_seeds} seeds")
    more_examples = enough(wanted, seeds, examples)
    if more_examples and more_examples[0] == seeds:
        ways.append(f"{more_examples[1]:,} test examples")
    if not ways and more_examples:
        ways.append(f"{more_examples[0]} seeds and {more_examples[1]:,} test examples")
    return (
        f"{' or '.join(ways)} would" if ways else "no reasonable number of seeds and examples does"
    )


def _shown(over_examples: float, examples: int, over_seeds: float, seeds: int) -> float:
    """What a test of this error shows, its two parts being estimated from so many values."""
    # Takes a second to import.
    from scipy.special import stdtrit

    variance = over_examples + over_seeds
    freedom = variance**2 / (
        over_examples**2 / max(examples - 1, 1) + over_seeds**2 / max(seeds - 1, 1)
    )
    quantiles = stdtrit(freedom, (1 + CONFIDENCE) / 2) + stdtrit(freedom, POWER)
    return min(100 * math.sqrt(variance) * float(quantiles), 100.0)
