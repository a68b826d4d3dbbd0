"""A forecast: the gain to expect, whether it is likely to be worth it, and what would change it."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from knife.core.words import in_percent
from knife.data.example import Splits
from knife.data.examples import explained_count
from knife.forecast.features import LEVELS, OFTEN, Features, features
from knife.forecast.gain import WORTH, Expected, Fitted, Room

# In a run's folder.
NAME = "forecast.json"
LIKELY, UNLIKELY, UNKNOWN = "likely", "unlikely", "unknown"
# Much more probable than not.
_SURE = 0.8
# Fewer rationales say little about the others.
_FEWEST = 20
# Below this, test is about other things than dev.
_FAMILIAR = 0.8
# A change is named if it is worth so many points.
_NAMED = 3.0


@dataclass(frozen=True, slots=True)
class Scores:
    """Accuracies on dev, from 0 to 1: of the run's teacher with and without rationales, and of a
    student that was finetuned."""

    with_rationale: float
    without_rationale: float
    finetune: float

    @property
    def room(self) -> Room:
        """What there is to gain over that student."""
        known = max(self.without_rationale, self.finetune)
        return Room(
            facts=max(0.0, 100 * (self.with_rationale - known)),
            task=100 * (known - self.finetune),
        )


@dataclass(frozen=True, slots=True)
class Forecast:
    """What to expect of knife in comparison with finetune.

    Attributes:
        verdict: likely, unlikely or unknown: whether knife gains 5 points or more.
        expected: the gain in points of test accuracy, with its error; None if nothing says what
            there is to gain: answers are open and no teacher was asked.
        features: what was read of the data.
        scores: the accuracies of models, if they were asked.
        notes: why the verdict is unknown, and what would change the gain, one sentence each.
    """

    verdict: str
    expected: Expected | None
    features: Features
    scores: Scores | None
    notes: tuple[str, ...]

    def sentence(self) -> str:
        """Say what to expect."""
        said = f"{self.verdict} that knife gains {WORTH:g} points or more over finetune"
        if (gain := self.expected) is None:
            return said
        return (
            f"{said}: {round(gain.gain):+d} points expected, 80 % interval {round(gain.low):+d} to "
            f"{round(gain.high):+d}"
        )

    def lines(self) -> list[str]:
        """Return all of it as plain text."""
        of, source = self.features, "train" if self.features.own else "dev"
        known = [] if of.question is None else [
            f"a classifier of the question alone: {in_percent(of.question)} right"
        ]  # fmt: skip
        asked = [] if self.scores is None else [
            f"the teacher on dev: {in_percent(self.scores.with_rationale)} right with rationales, "
            f"{in_percent(self.scores.without_rationale)} without; "
            f"a finetuned student: {in_percent(self.scores.finetune)}"
        ]  # fmt: skip
        return [
            f"forecast: {self.sentence()}",
            f"  of the facts in {of.asked} rationales of {source}, the median one is stated by "
            f"{of.mentions:.3g} of {of.examples:,} training examples, and "
            f"{in_percent(of.recurring)} by {OFTEN} or more",
            f"  training examples with a rationale: {in_percent(of.explained)}",
            f"  rationales fit their own questions rather than others: {in_percent(of.fit)}",
            f"  facts that the question tells itself: {in_percent(of.told)}",
            f"  rationales that give the answer away by themselves: {in_percent(of.leak)}",
            f"  test questions without words that train lacks, as a share of dev's: "
            f"{in_percent(of.familiar)}",
            *(f"  {line}" for line in (*known, *asked)),
            *(f"note: {note}" for note in self.notes),
        ]


def forecast(of: Features, scores: Scores | None = None) -> Forecast:
    """Return the forecast for data with these features, and for models if they were asked."""
    fitted = Fitted.load("teacher" if scores else "data")
    room = scores.room if scores else Room.of(of)
    expected = fitted.expected(of, room)
    known = scores is not None or of.question is not None
    verdict = likelihood(expected) if room.total >= WORTH or not known else UNLIKELY
    doubts = list(_doubts(of, room, fitted, asked=scores is not None))
    # Whatever there is to gain: what does not recur is not learned. Few rationales do not show it.
    forgotten = of.asked >= _FEWEST and fitted.curve.remembered(of) * of.familiar < 0.1
    if doubts and not (verdict == UNLIKELY and forgotten):
        verdict = UNKNOWN
    changes = _changes(of, room, fitted, scores)
    return Forecast(verdict, expected if known else None, of, scores, (*doubts, *changes))


def of_splits(splits: Splits) -> Forecast | None:
    """Return the forecast for data alone; None if no example of train has a rationale."""
    return forecast(features(splits)) if explained_count(splits.train) else None


def likelihood(expected: Expected) -> str:
    """Return `likely` or `unlikely` if that is much more probable than not, or else `unknown`."""
    if expected.worth >= _SURE:
        return LIKELY
    return UNLIKELY if 1 - expected.worth >= _SURE else UNKNOWN


def _doubts(of: Features, room: Room, fitted: Fitted, *, asked: bool) -> Iterable[str]:
    """Yield in what the data are outside of what was fitted."""
    if of.asked < _FEWEST:
        yield f"only {of.asked} rationales could be looked at: give more examples a rationale"
    if of.question is None and not asked:
        yield (
            "answers are open, or too few: what there is to gain is known only with the teacher "
            "(knife forecast --teacher)"
        )
    if room.total > fitted.room * 1.1:
        yield (
            f"there may be {room.total:.0f} points to gain, more than in any condition that was "
            f"measured ({fitted.room:.0f})"
        )


def _changes(of: Features, room: Room, fitted: Fitted, scores: Scores | None) -> Iterable[str]:
    """Yield what would raise the gain by some points: the other things being as they are."""
    curve = fitted.curve
    now = curve.gain(of, room)

    def more(changed: Features, there: Room = room) -> float:
        return curve.gain(changed, there) - now

    if of.familiar < _FAMILIAR:
        yield (
            "test has words that train and dev do not have: no student can remember facts about "
            "what no training rationale names"
        )
    never = 1 - of.at_least[1]
    often = replace(of, at_least=_scaled(of.at_least))
    if (gain := more(often)) >= _NAMED:
        yield (
            "more questions about the same facts: with four times as many training rationales a "
            f"fact, about {gain:.0f} points more"
        )
    elif never >= 0.5 and room.facts >= _NAMED:
        yield (
            f"{in_percent(never)} of the facts are in no training rationale, so that no student "
            "can remember them: knife needs questions about facts that recur"
        )
    better = replace(of, fit=1.0, told=0.0)
    if (gain := more(better)) >= _NAMED:
        yield (
            "better rationales, which state facts about their own question that it does not tell: "
            f"about {gain:.0f} points more"
        )
    if scores:
        if (gain := more(of, replace(scores, with_rationale=1.0).room)) >= _NAMED:
            yield (
                "a stronger teacher model, or one trained longer, if it were always right with "
                f"rationales: about {gain:.0f} points more"
            )
    elif of.question is not None and of.headroom < _NAMED:
        yield "the question alone gives the answer away: finetune has little left to gain"


def _scaled(at_least: dict[int, float]) -> dict[int, float]:
    """Return the shares if all facts were stated four times as often."""
    return {
        level: max(share for of, share in at_least.items() if 4 * of >= level) for level in LEVELS
    }
