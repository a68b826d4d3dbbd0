"""What data alone say about the gain that KNIFE may bring."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import numpy as np

from knife.data.example import Example, Splits
from knife.data.examples import explained_count, values_of
from knife.data.leaks import RationaleOnly, rationale_only
from knife.forecast.asked import asked_of, drawn
from knife.forecast.topic import familiar, fit, told
from knife.forecast.train_facts import TrainFacts

# About so often must a fact be stated before a student remembers it.
OFTEN = 5
# The share of facts that are stated at least so often is kept.
LEVELS = (1, 2, 3, 5, 8, 12, 20, 40)
# So many rationales are looked at, in so many examples of train; so many train a classifier.
_RATIONALES, _TRAIN, _CLASSIFIED = 500, 100_000, 5_000


@dataclass(frozen=True, slots=True)
class Features:
    """What is computed from the data; shares are from 0 to 1.

    Attributes:
        examples: of train.
        explained: share of them with a rationale.
        asked: number of rationales whose facts were looked for in those of train.
        own: whether these are of train itself, since dev has none.
        facts: mean number of facts that a rationale states.
        mentions: median number of training examples that state a fact.
        mean_mentions: the mean.
        at_least: share of facts stated by at least so many, for each of `LEVELS`; a rationale that
            states no fact counts as one that is never stated.
        fit: how much better rationales fit their own questions than others'.
        told: share of facts that the question itself tells.
        leak: what a classifier gains from the rationale alone, as a share of what it could: 1 if it
            always finds the answer, 0 if it guesses.
        question: accuracy of a classifier that sees the question alone, or of guessing if that is
            better; None if answers are open, or there are too few.
        chance: accuracy of guessing; None as before.
        familiar: how many questions of test have no word that train lacks, in relation to those of
            dev; 1 if as many or more.
    """

    examples: int
    explained: float
    asked: int
    own: bool
    facts: float
    mentions: float
    mean_mentions: float
    at_least: dict[int, float]
    fit: float
    told: float
    leak: float
    question: float | None
    chance: float | None
    familiar: float = 1.0

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "Features":
        """Read what `dataclasses.asdict` gives, also after a round trip through JSON."""
        shares = {int(level): share for level, share in values["at_least"].items()}
        return Features(**values | {"at_least": shares})

    @property
    def recurring(self) -> float:
        """The share of facts that enough training examples state."""
        return self.at_least[OFTEN]

    @property
    def headroom(self) -> float:
        """What a classifier of the question alone lacks, in points; 0 if unknown."""
        return 0.0 if self.question is None else 100 * (1 - self.question)


def features(splits: Splits) -> Features:
    """Compute the features of a run's data. Answers of dev and test are not looked at, nor are the
    rationales of test."""
    train = _drawn(splits.train, _TRAIN)
    asked, known = asked_of(replace(splits, train=train), _RATIONALES), TrainFacts(train)
    parts = known.mentions(asked)
    # A rationale without facts counts as one with a fact that is never stated.
    never = np.zeros(1)
    counts = np.concatenate([part if len(part) else never for part in parts] or [never])
    counts = counts * (len(splits.train) / len(train))
    # In one order, as folds depend on it.
    few = sorted(_drawn(train, _CLASSIFIED), key=lambda example: example.id)
    asks, says = rationale_only(list(map(_question_as_rationale, few))), rationale_only(few)
    return Features(
        examples=len(splits.train),
        explained=explained_count(splits.train) / len(splits.train),
        asked=len(asked),
        own=any(each.place >= 0 for each in asked),
        facts=fmean(map(len, parts)) if parts else 0.0,
        mentions=float(np.median(counts)),
        mean_mentions=float(counts.mean()),
        at_least={level: float((counts >= level).mean()) for level in LEVELS},
        fit=fit(asked),
        told=told(asked, known),
        leak=_beyond_chance(says),
        question=None if asks is None else max(asks.accuracy, asks.chance),
        chance=None if asks is None else asks.chance,
        familiar=familiar(
            train, *(_drawn(part, _RATIONALES) for part in (splits.dev, splits.test))
        ),
    )


def _drawn(examples: Sequence[Example], most: int) -> Sequence[Example]:
    if len(examples) <= most:
        return examples
    return drawn(examples, list(values_of(examples, "id")), most)


def _question_as_rationale(example: Example) -> Example:
    return replace(example, rationale=example.question, more_rationales=())


def _beyond_chance(found: RationaleOnly | None) -> float:
    if found is None or found.chance == 1:
        return 0.0
    return max(0.0, (found.accuracy - found.chance) / (1 - found.chance))
