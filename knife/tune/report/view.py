"""A sweep's trials prepared for optuna's plots: scores in percent, values in words."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from knife.tune.search.labels import label, shown
from knife.tune.search.settings import Domain
from knife.tune.search.space import Space
from knife.tune.search.study import direction_name, frozen_trials, ranked
from knife.tune.search.trials import TrialRow

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

# A scale is logarithmic if its values span more than this factor.
LOG_SPREAD = 5
# Optuna's documentation advises this many good trials for judging importance.
_GOOD_TRIALS = 5
# With fewer finished trials, the values of the good ones are chance.
LEAST_FOR_IMPORTANCE = 8


@dataclass(frozen=True)
class View:
    """Ended trials of a sweep, some finished."""

    space: Space
    rows: Sequence[TrialRow]

    @cached_property
    def finished(self) -> list[TrialRow]:
        """The finished trials, best first."""
        return ranked(self.space, self.rows)

    @cached_property
    def keys(self) -> list[str]:
        """The keys in which the finished trials differ."""
        return self.space.differing(row.point for row in self.finished)

    @cached_property
    def numeric_keys(self) -> list[str]:
        """Those of `keys` whose values are numbers, most important first."""
        numeric = [key for key in self.keys if _is_numeric(self.space.sweep.space[key])]
        return sorted(numeric, key=lambda key: -self.importances.get(key, 0.0))

    @cached_property
    def scores_differ(self) -> bool:
        """Whether there are differences that a key could explain."""
        return len({row.score for row in self.finished}) > 1

    @cached_property
    def study(self) -> "Study":
        """All trials."""
        import optuna

        study = optuna.create_study(direction=direction_name(self.space))
        study.add_trials(self._trials)
        return study

    def is_logarithmic(self, key: str) -> bool:
        """Whether a numeric key is shown on a logarithmic scale."""
        return bool(getattr(self.study.trials[0].distributions[key], "log", False))

    @cached_property
    def evaluator(self) -> Any:
        """Judges the importance of keys by how the good trials' values differ from those of all.

        Optuna looks at the best tenth. With few trials that is one or two, whose values are chance.
        """
        from optuna.importance import PedAnovaImportanceEvaluator

        share = _GOOD_TRIALS / max(len(self.finished), 1)
        return PedAnovaImportanceEvaluator(target_quantile=min(max(share, 0.1), 0.5))

    @cached_property
    def importances(self) -> dict[str, float]:
        """Importance by key, summing to 1; empty if there is nothing to judge by.

        If optuna cannot tell the good trials from the others, it would rate all keys equally.
        """
        if len(self.finished) < LEAST_FOR_IMPORTANCE or not self.scores_differ or not self.keys:
            return {}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*importances will be equal")
            found: dict[str, float] = self.evaluator.evaluate(self.study, params=self.keys)
        together = sum(found.values())
        if not together > 0:
            return {}
        ordered = sorted(found, key=lambda key: -found[key])
        return {key: found[key] / together for key in ordered}

    @cached_property
    def _trials(self) -> list["FrozenTrial"]:
        from optuna.trial import create_trial

        space = self.space.sweep.space
        distributions = self.space.distributions() | {
            key: _distribution(domain) for key, domain in space.items() if domain.values
        }
        found = []
        rows = sorted(self.rows, key=lambda row: row.number)
        for row, trial in zip(rows, frozen_trials(self.space, rows), strict=True):
            params = {
                key: label(domain, row.point[key])
                if domain.values and not _is_numeric(domain)
                else row.point[key]
                for key, domain in space.items()
            }
            value = None if trial.values is None else shown(self.space, trial.values[0])
            found.append(
                create_trial(
                    state=trial.state,
                    value=value,
                    params=params,
                    distributions=distributions,
                    user_attrs=trial.user_attrs,
                )
            )
        return found


def _is_numeric(domain: Domain) -> bool:
    return all(isinstance(v, int | float) and not isinstance(v, bool) for v in domain.values)


def _distribution(domain: Domain) -> Any:
    """Return the distribution that optuna plots best: numbers on a scale, others in words."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if not _is_numeric(domain):
        return CategoricalDistribution([label(domain, value) for value in domain.values])
    low, high = float(min(domain.values)), float(max(domain.values))
    return FloatDistribution(low, high, log=low > 0 and high > LOG_SPREAD * low)
