"""What differences an experiment can show, estimated before it is run.

A difference of d is shown at 5 %, two-sided, with a power of 80 % if

    d >= (t[.975] + t[.8]) sqrt(var(a) / S + var(b) / N + var(e) / (S N))

for S seeds and N examples, in the model of `compare.spread` (Cohen 1988, "Statistical power
analysis for the behavioral sciences", section 2.4, with that model's error and its degrees of
freedom). The variances are not known in advance. Those assumed here were measured between knife
and finetune with a pretrained encoder on CoS-E (3 seeds, 950 questions), where a quarter of the
answers differ.
"""

import math

from knife.core.words import counted
from knife.stats.compare import CONFIDENCE, POWER, steady_examples

# Variance of a difference (-1, 0 or 1) over examples, over seeds, and the residual.
EXAMPLES, SEEDS, REST = 0.115, 0.018**2, 0.138
_MOST_SEEDS, _MOST_EXAMPLES = 20, 100_000


def detectable(seeds: int, examples: int) -> float:
    """Return the smallest difference between methods, in points, that this experiment can show.

    It never grows with more seeds or examples. One seed shows nothing about methods (infinity),
    as a difference may be due to the seed; nor does one example. Otherwise at most 100 points.
    """
    if seeds == 1 or examples == 1:
        return math.inf
    steady = steady_examples(seeds, examples)
    over_examples = EXAMPLES / steady + REST / (seeds * steady)
    # The residual is in both parts, as in the test.
    over_seeds = SEEDS / seeds + REST / (seeds * examples)
    return _shown(over_examples, examples, over_seeds, seeds)


def detectable_between_students(examples: int) -> float:
    """Return the smallest difference, in points, that can be shown between two given students."""
    return _shown(EXAMPLES / examples + REST / examples, examples, 0.0, 1)


def enough(points: float, seeds: int, examples: int = 2) -> tuple[int, int] | None:
    """Return the fewest seeds, at least `seeds`, and for these the fewest examples, at least
    `examples`, that show a difference of `points`; None if no reasonable number does."""
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
    """State what the test split and the seeds of a run can show, and what it would take to show
    the `wanted` difference, in points, if they cannot."""
    if examples == 1:
        said = "one test example cannot show any difference"
        if wanted is None:
            return [said]
        return [f"compare.difference: {said}; {_advice(seeds, examples, wanted)}"]
    found, whom = detectable(seeds, examples), ""
    if seeds == 1:
        found, whom = detectable_between_students(examples), " between these two students"
    said = f"{counted(seeds, 'seed')} and {examples:,} test examples can show differences of about "
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
    """State what would show the wanted difference: more seeds, or more examples, or else both."""
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
    """Return the difference, in points, that a test shows with these two parts of its variance,
    estimated from `examples` and `seeds` values."""
    # The import takes a second.
    from scipy.special import stdtrit

    variance = over_examples + over_seeds
    freedom = variance**2 / (
        over_examples**2 / max(examples - 1, 1) + over_seeds**2 / max(seeds - 1, 1)
    )
    quantiles = stdtrit(freedom, (1 + CONFIDENCE) / 2) + stdtrit(freedom, POWER)
    return min(100 * math.sqrt(variance) * float(quantiles), 100.0)
