"""Scores of the rationales that students write: docs/rationale-quality.md has the equations."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from knife.stats.compare import compare, interval


@dataclass(frozen=True, slots=True)
class Reply:
    """What a student wrote about one example, and what others make of it.

    Attributes:
        without: share of the seeds whose finetuned student is right, I -> O.
        explained: 1 if the teacher is right that reads the student's rationale, I + R -> O, else 0;
            1/k in a tie of k choices.
        answer: the student's answer, as text.
        follows: what the model of the rationale alone answers to it, R -> O.
        choices: how many choices there are; 0 if all examples have the same ones, or none.
    """

    without: float
    explained: float
    answer: str
    follows: str
    choices: int


@dataclass(frozen=True, slots=True)
class WrittenScores:
    """The scores of what the students of a method write, means over seeds and examples.

    Attributes:
        method: the method's name.
        seeds, examples: their numbers.
        rq: I + R -> O minus I -> O, in points, with the students' own rationales.
        rq_low, rq_high, p: its 95 % interval, and the probability of so much by chance; None if
            nothing shows the spread.
        consistency: the share of answers that are those which follow from the rationale alone.
        consistency_low, consistency_high: its 95 % interval, or None.
        by_chance: that share if answers and rationales belonged to different examples.
    """

    method: str
    seeds: int
    examples: int
    rq: float
    rq_low: float | None
    rq_high: float | None
    p: float | None
    consistency: float
    consistency_low: float | None
    consistency_high: float | None
    by_chance: float


def written_scores(method: str, replies: Sequence[Sequence[Reply]]) -> WrittenScores:
    """Compute the scores of a method from the replies of each seed to the same examples."""
    differences = np.array([[each.explained - each.without for each in own] for own in replies])
    agree = np.array([[float(e.answer == e.follows) for e in own] for own in replies])
    rq, _ = compare(differences)
    low, high = interval(agree) or (None, None)
    return WrittenScores(
        method=method,
        seeds=len(replies),
        examples=len(replies[0]),
        rq=rq.points,
        rq_low=rq.low,
        rq_high=rq.high,
        p=rq.p,
        consistency=float(agree.mean()),
        consistency_low=low,
        consistency_high=high,
        by_chance=fmean(map(_by_chance, replies)),
    )


def _by_chance(replies: Sequence[Reply]) -> float:
    if any(reply.choices for reply in replies):
        return fmean(1 / reply.choices for reply in replies)
    pairs = [(reply.answer, reply.follows) for reply in replies]
    answers, follows = (Counter(texts) for texts in zip(*pairs, strict=True))
    return sum(answers[text] * follows[text] for text in answers) / len(replies) ** 2
