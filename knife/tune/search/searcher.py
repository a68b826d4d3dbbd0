"""Searchers for Ray Tune: known trials in order, or optuna's suggestions."""

import math
from collections.abc import Sequence
from typing import Any

import optuna
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from knife.tune.search.begun import Begun, free_number
from knife.tune.search.space import Space
from knife.tune.search.trial import SCORE


class Points(Searcher):  # type: ignore[misc]
    """Suggests the given params in order, each once."""

    def __init__(self, params: Sequence[dict[str, Any]]) -> None:
        super().__init__(metric=SCORE, mode="max")
        self._params = list(params)

    @property
    def left(self) -> int:
        """How many are still to be suggested."""
        return len(self._params)

    def suggest(self, trial_id: str) -> Any:  # noqa: ARG002  (the library's signature)
        """Return the next trial's params, or `FINISHED` after the last one."""
        return self._params.pop(0) if self._params else Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """Learn nothing."""

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: every start reads which trials have begun."""


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

    def suggest(self, trial_id: str) -> Any:
        """Return the next trial's params, or `FINISHED` after the last one."""
        if self.left <= 0:
            return Searcher.FINISHED
        self.left -= 1
        suggested = super().suggest(trial_id)
        number = self._pending.pop(0) if self._pending else free_number(self._taken)
        self._taken.add(number)
        return {"number": number, "suggested": suggested}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Learn an intermediate score."""
        if SCORE in result:
            super().on_trial_result(trial_id, result)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Learn a trial's result; one without a score has failed."""
        failed = error or SCORE not in (result or {})
        super().on_trial_complete(trial_id, None if failed else result, failed)

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: every start reads which trials have begun."""
