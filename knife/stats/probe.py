"""Whether a student's answers and its rationales belong together (Wiegreffe et al. 2021, arXiv
2010.12762): they fall at the same noise, and the same tokens matter for both."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from knife.stats.compare import spread

Array = NDArray[np.float64]
# In a run's folder.
NAME = "probe.json"
# Enough for two digits of a 95 % interval.
_RESAMPLED = 2_000


@dataclass(frozen=True, slots=True)
class Level:
    """Answers and rationales at one level of noise.

    Attributes:
        noise: its standard deviation, in units of that of all embeddings.
        accuracy: of the answers, from 0 to 1.
        rq: accuracy of the teacher that reads the rationales, minus that of finetune.
        answers_left, rationales_left: what is left of accuracy above guessing and of RQ, as a
            share of what there is without noise: value, low and high end of the 95 % interval over
            examples; None if there is nothing to lose.
    """

    noise: float
    accuracy: float
    rq: float
    answers_left: tuple[float, float, float] | None
    rationales_left: tuple[float, float, float] | None

    @property
    def alike(self) -> bool | None:
        """Whether the two intervals overlap; None if one is unknown."""
        if self.answers_left is None or self.rationales_left is None:
            return None
        (_, low, high), (_, other_low, other_high) = self.answers_left, self.rationales_left
        return low <= other_high and other_low <= high


@dataclass(frozen=True, slots=True)
class Agreement:
    """The rank correlation of how important tokens are for answer and rationale: mean over
    examples, of an example's own two, and of its answer with the rationale of another example of
    the same length; and their difference with its 95 % interval, None if nothing shows it."""

    examples: int
    own: float
    other: float
    difference: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Probe:
    """What was found about the students of one method.

    Attributes:
        method, seed: whose student was looked at: the first one of its method.
        examples: number of test examples.
        levels: answers and rationales by noise.
        agreement: of the importance of tokens; None if no two questions are equally long.
    """

    method: str
    seed: int
    examples: int
    levels: list[Level]
    agreement: Agreement | None

    def lines(self) -> list[str]:
        """Return what a reader should know besides the table, one sentence each."""
        known = [level.alike for level in self.levels]
        apart = next((level.noise for level in self.levels if level.alike is False), None)
        said = "answers and rationales fall alike with noise, within their intervals"
        if apart is not None:
            said = f"answers and rationales part at noise {apart:g}"
        if None in known:
            said = "whether answers and rationales fall alike is unknown: one has nothing to lose"
        found = self.agreement
        return [
            f"{self.method} seed {self.seed}, {self.examples} test examples: {said}",
            f"{self.method}: no two questions are equally long, so that no agreement has a control"
            if found is None
            else f"{self.method}: rank correlation of tokens' importance for answer and rationale "
            f"{found.own:.2f}, with another example's rationale {found.other:.2f}: "
            f"{found.difference:+.2f}{_interval(found)}",
        ]


def _interval(of: Agreement) -> str:
    return "" if of.low is None else f" ({of.low:+.2f} to {of.high:+.2f})"


def levels(
    noises: Sequence[float], right_LDN: Array, quality_LDN: Array, chance: float
) -> list[Level]:
    """Return how answers and rationales fall with noise.

    Args:
        noises: the levels, the first of which is 0.
        right_LDN: by level, draw of the noise, and example: whether the answer is right.
        quality_LDN: whether the teacher is right that reads what was written, minus finetune.
        chance: the accuracy of guessing.
    """
    answers = _left(right_LDN - chance)
    rationales = _left(quality_LDN)
    return [
        Level(
            noise,
            float(right_LDN[at].mean()),
            float(quality_LDN[at].mean()),
            answers[at] if answers else None,
            rationales[at] if rationales else None,
        )
        for at, noise in enumerate(noises)
    ]


def _left(values_LDN: Array) -> list[tuple[float, float, float]] | None:
    """Return the share of the first level's mean that is left at each level, with the interval by
    resampling examples; None if that mean is not above 0 in nearly all samples."""
    values_LN = values_LDN.mean(axis=1)
    draw = np.random.default_rng(0)
    rows = draw.integers(values_LN.shape[1], size=(_RESAMPLED, values_LN.shape[1]))
    means_LR = np.stack([level[rows].mean(axis=1) for level in values_LN])
    if np.quantile(means_LR[0], 0.025) <= 0:
        return None
    means_LR = means_LR[:, means_LR[0] > 0]
    shares_LR = means_LR / means_LR[0]
    whole = values_LN.mean(axis=1) / values_LN[0].mean()
    low, high = np.quantile(shares_LR, (0.025, 0.975), axis=1)
    return [tuple(map(float, each)) for each in zip(whole, low, high, strict=True)]  # type: ignore[misc]


def agreement(importances: Sequence[tuple[Array, Array]]) -> Agreement | None:
    """Return the agreement of answers' and rationales' importances; None if no two examples have
    the same number of tokens. What agrees with another example's rationale is the form of the
    questions, not their content."""
    from scipy import stats

    by_length: dict[int, list[int]] = {}
    for row, (answer, _) in enumerate(importances):
        by_length.setdefault(len(answer), []).append(row)
    own, other = [], []
    for rows in by_length.values():
        if len(rows) < 2:
            continue
        for row, partner in zip(rows, [*rows[1:], rows[0]], strict=True):
            answer, rationale = importances[row]
            if min(np.ptp(each) for each in (*importances[row], *importances[partner])) == 0:
                # Nothing matters more than anything else, as where the gradient vanished.
                continue
            own.append(float(stats.spearmanr(answer, rationale).statistic))
            other.append(float(stats.spearmanr(answer, importances[partner][1]).statistic))
    if not own:
        return None
    differences = np.array(own) - np.array(other)
    found = spread(differences[None])
    mean = float(differences.mean())
    reach = found.quantile(0.975) if found else None
    return Agreement(
        len(own),
        float(np.mean(own)),
        float(np.mean(other)),
        mean,
        None if reach is None else mean - reach,
        None if reach is None else mean + reach,
    )
