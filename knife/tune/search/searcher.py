"""What suggests trials: a list of known ones, or Ray Tune's search with optuna."""

import math
from collections.abc import Sequence
from typing import Any, Protocol

import optuna
from ray.tune.search.optuna import OptunaSearch

from knife.tune.search.begun import Begun, free_number
from knife.tune.search.space import Space
from knife.tune.search.trial import SCORE


class Searcher(Protocol):
    """Suggests trials, and may learn from their scores. It knows a trial by any unique name."""

    @property
    def left(self) -> int:
        """How many trials are still to be suggested."""

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """Return the next trial's params; None after the last one."""

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Learn an intermediate score."""

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Learn a trial's result; one without a score has failed."""


class Points:
    """Suggests the given params in order, each once, and learns nothing."""

    def __init__(self, params: Sequence[dict[str, Any]]) -> None:
        self._params = list(params)

    @property
    def left(self) -> int:
        """How many are still to be suggested."""
        return len(self._params)

    def suggest(self, trial_id: str) -> dict[str, Any] | None:  # noqa: ARG002
        """Return the next trial's params; None after the last one."""
        return self._params.pop(0) if self._params else None

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Learn nothing."""

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Learn nothing."""


class Suggestions(OptunaSearch):  # type: ignore[misc]
    """Suggestions of optuna's TPE, numbered in order.

    Args:
        space: the space to search.
        trials: total number of trials, including those of earlier starts.
        begun: trials of earlier starts, by number. The ended ones are given to optuna; the others
            come first, with the params that they had.

    Attributes:
        left: how many trials are still to be suggested.
    """

    def __init__(self, space: Space, trials: int, begun: Sequence[Begun] = ()) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sampler = optuna.samplers.TPESampler(seed=space.sweep.seed)
        pending = [each for each in begun if not each.ended]
        self.left = trials - sum(each.ended for each in begun)
        self._pending = [each.row.number for each in pending]
        self._taken = {each.row.number for each in begun}
        # They come before all other trials.
        first = [space.encode(point) for point in space.sweep.first][len(begun) :]
        # Resume the random draws where earlier starts ended, as if there had been one start.
        drawn = optuna.create_study(sampler=sampler)
        for _ in range(len(space.sweep.first), len(begun)):
            drawn.ask(space.distributions())
        super().__init__(
            space.distributions(),
            metric=SCORE,
            mode=space.sweep.direction,
            points_to_evaluate=[each.params["suggested"] for each in pending] + first or None,
            sampler=sampler,
        )
        for each in begun:
            if each.ended:
                score = each.row.score
                failed = score is None or not math.isfinite(score)
                self.add_evaluated_point(each.params["suggested"], score, error=failed)

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """Return the next trial's params; None after the last one."""
        if self.left <= 0:
            return None
        self.left -= 1
        suggested = super().suggest(trial_id)
        number = self._pending.pop(0) if self._pending else free_number(self._taken)
        self._taken.add(number)
        return {"number": number, "suggested": suggested}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Learn a trial's result; one without a score has failed."""
        failed = error or SCORE not in (result or {})
        super().on_trial_complete(trial_id, None if failed else result, failed)
