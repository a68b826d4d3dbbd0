"""What Ray Tune is told to try: points that are known, or what optuna suggests."""

import json
from pathlib import Path
from typing import Any

import optuna
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from knife import strict_json
from knife.tune.space import Point, Space
from knife.tune.trial import SCORE


class Points(Searcher):  # type: ignore[misc]
    """Gives points in their order, each once, also after a restart."""

    def __init__(self, points: list[dict[str, Any]]) -> None:
        super().__init__(metric=SCORE, mode="max")
        self._points = points
        self._given = 0

    def suggest(self, trial_id: str) -> Any:  # noqa: ARG002  (the library's signature)
        """The next point's params; the end after the last one."""
        if self._given == len(self._points):
            return Searcher.FINISHED
        self._given += 1
        return {"number": self._given} | self._points[self._given - 1]

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """Nothing to learn."""

    def save(self, checkpoint_path: str) -> None:
        """Write how many were given."""
        Path(checkpoint_path).write_text(strict_json.dumps(self._given))

    def restore(self, checkpoint_path: str) -> None:
        """Read what `save` wrote."""
        self._given = json.loads(Path(checkpoint_path).read_text())


class Suggestions(OptunaSearch):  # type: ignore[misc]
    """What optuna suggests, numbered in the order of its suggestions."""

    _given = 0

    def suggest(self, trial_id: str) -> Any:
        """The next trial's params."""
        suggested = super().suggest(trial_id)
        self._given += 1
        return {"number": self._given, "suggested": suggested}


def searcher(space: Space, points: list[Point] | None) -> Searcher:
    """Of a search's trials: its points, or optuna's TPE where they are not known before."""
    if points is not None:
        return Points([{"point": point} for point in points])
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return Suggestions(
        space.distributions(),
        metric=SCORE,
        mode=space.sweep.direction,
        points_to_evaluate=[space.encode(point) for point in space.sweep.first] or None,
        sampler=optuna.samplers.TPESampler(seed=space.sweep.seed),
    )
