"""Verdicts: time, false positives, and how often their intervals contain the true difference.

python bench/verdicts.py [experiments]
"""

import sys
import time

import numpy as np
from numpy.typing import NDArray

from knife.stats.compare import compare
from knife.stats.verdict import verdict

EXAMPLES = 400
# Standard deviation over seeds, on the logit scale.
EFFECTS = (0.0, 0.15, 0.5)
DRAWS = 1000


def timed_verdict() -> float:
    """Time a verdict on 10 methods, 5 seeds and 1,000 examples, in seconds."""
    generator = np.random.default_rng(0)
    ids = [f"example-{number}" for number in range(1000)]
    predictions = {
        name: {s: dict(zip(ids, generator.random(1000) < 0.6, strict=True)) for s in range(5)}
        for name in ("finetune", *(f"method-{number}" for number in range(9)))
    }
    started = time.perf_counter()
    verdict(predictions)
    return time.perf_counter() - started


def differences(generator: np.random.Generator, seeds: int, effect: float) -> NDArray[np.float64]:
    """Simulate differences between two equally good methods."""
    difficulty = generator.normal(0, 1, (1, EXAMPLES))

    def right() -> NDArray[np.float64]:
        taste = generator.normal(0, 0.5, (1, EXAMPLES))
        logit = difficulty + taste + generator.normal(0, effect, (seeds, 1))
        return (generator.random((seeds, EXAMPLES)) < 1 / (1 + np.exp(-logit))).astype(float)

    return right() - right()


def bootstrap(
    generator: np.random.Generator, values_SN: NDArray[np.float64]
) -> tuple[float, float]:
    """Return the two-way percentile bootstrap's interval: seeds and examples resampled."""
    seeds, examples = values_SN.shape
    of_seeds = generator.multinomial(seeds, np.full(seeds, 1 / seeds), DRAWS) / seeds
    of_examples = generator.multinomial(examples, np.full(examples, 1 / examples), DRAWS) / examples
    means = ((of_seeds @ values_SN) * of_examples).sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def main() -> None:
    experiments = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    print(f"10 methods x 5 seeds x 1,000 examples: {timed_verdict():.2f} s")
    print("no difference; share of p < 0.05, and of intervals that hold 0 (t, bootstrap)")
    for effect in EFFECTS:
        for seeds in (1, 2, 3, 5, 10):
            generator = np.random.default_rng(seeds)
            found, held, drawn = 0, 0, 0
            for _ in range(experiments):
                values_SN = differences(generator, seeds, effect)
                difference, _ = compare(values_SN)
                assert difference.p is not None
                assert difference.low is not None
                assert difference.high is not None
                found += difference.p < 0.05
                held += difference.low <= 0 <= difference.high
                low, high = bootstrap(generator, values_SN)
                drawn += low <= 0 <= high
            shares = [f"{count / experiments:.3f}" for count in (found, held, drawn)]
            print(f"seed effect {effect:.2f}, {seeds:2} seeds: {'  '.join(shares)}")


if __name__ == "__main__":
    main()
