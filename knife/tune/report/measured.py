"""The result of a trial: mean over seeds with an interval, on test if that is known."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from knife.tune.search.labels import is_share, metric_label, shown
from knife.tune.search.space import Space
from knife.tune.search.study import ranked
from knife.tune.search.trials import TrialRow

CONFIDENCE = 0.95


@dataclass(frozen=True)
class MeanInterval:
    """A mean over seeds and its 95 % t-interval; with one seed, both ends equal the mean."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Measured:
    """The finished trials of a sweep, in one unit.

    Attributes:
        space: the sweep's space.
        rows: the finished trials, best first by the sweep's metric.
        on_test: whether accuracy on test is shown; if so, every row has it.
    """

    space: Space
    rows: tuple[TrialRow, ...]
    on_test: bool

    @staticmethod
    def of(space: Space, rows: Sequence[TrialRow]) -> "Measured":
        """Collect the finished trials among the rows."""
        finished = tuple(ranked(space, rows))
        return Measured(space, finished, all(row.tests for row in finished))

    @property
    def label(self) -> str:
        """What is shown, with its unit."""
        return "test accuracy (%)" if self.on_test else metric_label(self.space)

    @property
    def words(self) -> str:
        """What is shown, without its unit."""
        return self.label.removesuffix(" (%)")

    @property
    def is_share(self) -> bool:
        """Whether what is shown is in percent."""
        return self.on_test or is_share(self.space)

    def estimate(self, row: TrialRow) -> MeanInterval:
        """Return a trial's mean and interval, in the unit of `label`."""
        values = self._values(row)
        mean = statistics.fmean(values)
        if len(values) < 2:
            return MeanInterval(mean, mean, mean)
        # Takes a second to import.
        from scipy import stats

        error = statistics.stdev(values) / math.sqrt(len(values))
        reach = error * float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1))
        low, high = mean - reach, mean + reach
        if self.is_share:
            # An accuracy cannot be outside these.
            low, high = max(low, 0.0), min(high, 100.0)
        return MeanInterval(mean, low, high)

    def best_by(self, keys: Sequence[str]) -> list[TrialRow]:
        """Return the best trial for each combination of the keys' values, ordered by number."""
        found: dict[str, TrialRow] = {}
        for row in self.rows:
            point = self.space.encode({key: row.point[key] for key in keys})
            found.setdefault(repr(point), row)
        return sorted(found.values(), key=lambda row: row.number)

    def discrete(self, *, but: str = "") -> list[str]:
        """Return the keys that have a list of values, if the rows differ in them."""
        differing = self.space.differing(row.point for row in self.rows)
        return [key for key in differing if self.space.sweep.space[key].values and key != but]

    def note(self) -> str:
        """Say how many seeds a mean is over, and what the bars are."""
        counts = sorted({len(self._values(row)) for row in self.rows})
        if counts == [1]:
            return "one seed, so there are no intervals"
        seeds = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        return f"mean of {seeds} seeds with its 95 % t-interval"

    def _values(self, row: TrialRow) -> list[float]:
        if self.on_test:
            return [100 * value for value in row.tests.values()]
        assert row.score is not None
        return [shown(self.space, value) for value in row.scores.values() or [row.score]]
