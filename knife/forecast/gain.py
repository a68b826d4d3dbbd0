"""The expected gain of KNIFE over finetune: a formula of few parameters, fitted to measured gains.

    gain = fit^a x (facts x ceiling x remembered x familiar x (1 - told)^b + task x taught)

`facts` and `task` are what there is to gain (see `Room`). `remembered` is the mean over facts of a
curve from 0 to 1 in the logarithm of how many training rationales state the fact. `familiar` is
below 1 if test questions have words that train lacks more often than those of dev. Every factor is
monotone.
"""

import math
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from statistics import fmean
from typing import Any

from knife.core import strict_json
from knife.forecast.features import LEVELS, Features

PARAMETERS = "parameters.json"
# A gain of so many points is worth the GPU hours.
WORTH = 5.0
# With so many labels, half of what a task offers is learned from them.
_FEW = 100
# The interval that is told holds this share.
_INSIDE = 0.8


@dataclass(frozen=True, slots=True)
class Room:
    """What there is to gain over finetune, in points.

    Attributes:
        facts: by what rationales say: what a teacher with them knows more than without them, and
            than a finetuned student.
        task: by learning the task itself better than from labels: what a teacher without rationales
            knows more than a finetuned student.
    """

    facts: float
    task: float = 0.0

    @staticmethod
    def of(features: Features) -> "Room":
        """Return what data say if no model was asked: of what a classifier of the question alone
        lacks, the task offers as much as questions tell, if labels are few, and facts the rest."""
        task = features.headroom * features.told * _FEW / (_FEW + features.examples)
        return Room(features.headroom - task, task)

    @property
    def total(self) -> float:
        """All of it."""
        return self.facts + self.task


@dataclass(frozen=True, slots=True)
class Curve:
    """The fitted parameters of the formula.

    Attributes:
        ceiling: the share of what facts offer that is gained at best.
        half: how many rationales must state a fact for half of that.
        slope: how fast that grows, in units of the logarithm.
        fit, told: the powers.
        taught: the share of what the task offers that is gained.
    """

    ceiling: float
    half: float
    slope: float
    fit: float
    told: float
    taught: float

    def gain(self, of: Features, room: Room) -> float:
        """Return the expected gain in points."""
        factors = (
            max(room.facts, 0.0),
            self.ceiling,
            self.remembered(of),
            of.familiar,
            math.pow(1 - of.told, self.told),
        )
        task = max(room.task, 0.0) * self.taught
        return math.pow(of.fit, self.fit) * (math.prod(factors) + task)

    def remembered(self, of: Features) -> float:
        """Return the share of facts that a student remembers, from 0 to 1."""
        shares = [of.at_least[level] for level in LEVELS] + [0.0]
        found = 0.0
        for index, level in enumerate(LEVELS):
            # Of those that are stated so often, but not as often as the next level says.
            beyond = LEVELS[index + 1] if index + 1 < len(LEVELS) else 2 * level
            middle = math.log(math.sqrt(level * beyond) / self.half) / self.slope
            found += (shares[index] - shares[index + 1]) / (1 + math.exp(-middle))
        return found


@dataclass(frozen=True, slots=True)
class Fitted:
    """A curve with what was measured besides.

    Attributes:
        curve: its parameters.
        spread: how far measured gains were from expected ones, in points: `spread[0]`, and
            `spread[1]` for each point of the expected gain.
        residuals: such distances in units of the spread, each of a condition that the curve had
            not seen, in ascending order.
        room: the greatest room of a condition, facts and task together.
    """

    curve: Curve
    spread: tuple[float, float]
    residuals: tuple[float, ...]
    room: float

    @staticmethod
    def load(name: str) -> "Fitted":
        """Read a curve that was fitted with models that were asked (`teacher`) or without them
        (`data`)."""
        values = _parameters()[name]
        return Fitted(
            Curve(**values["curve"]),
            tuple(values["spread"]),
            tuple(values["residuals"]),
            values["room"],
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the values that `load` reads."""
        return asdict(self)

    def expected(self, of: Features, room: Room) -> "Expected":
        """Return the expected gain with what is known of its error."""
        gain = self.curve.gain(of, room)
        scale = self.spread[0] + self.spread[1] * gain
        worth = fmean(gain + scale * each >= WORTH for each in self.residuals)
        out = (1 - _INSIDE) / 2
        low, high = (gain + scale * self._quantile(share) for share in (out, 1 - out))
        # No more than there is, but for the error of measuring it.
        high = min(max(high, gain), max(room.total, gain) + self.spread[0])
        return Expected(gain, min(low, gain), high, worth)

    def _quantile(self, share: float) -> float:
        """Return a quantile of the residuals, interpolated."""
        place = share * (len(self.residuals) - 1)
        below = min(int(place), len(self.residuals) - 2)
        low, high = self.residuals[below : below + 2]
        return low + (place - below) * (high - low)


@dataclass(frozen=True, slots=True)
class Expected:
    """A gain in points, its 80 % interval, and the probability that it is worth the effort: of at
    least 5 points."""

    gain: float
    low: float
    high: float
    worth: float


@cache
def _parameters() -> Any:
    return strict_json.loads((files("knife.forecast") / PARAMETERS).read_bytes())
