"""How long stages take, from those that were made before."""

import math
from collections.abc import Mapping

from knife.data.example import Splits
from knife.plan.stage import Stage, StatesStage, StudentStage, TeacherStage
from knife.plan.steps import training_examples

# A backward pass computes about twice what a forward pass does.
_PASSES_OF_A_STEP = 3


class Pace:
    """Estimates the seconds of a stage from its size, and from the measured rate of its kind.

    Args:
        data: splits by data key; may grow later.
    """

    def __init__(self, data: Mapping[str, Splits]) -> None:
        self._data = data
        # Seconds and forward passes of examples, by kind.
        self._measured: dict[str, tuple[float, float]] = {}

    def add(self, stage: Stage, seconds: float) -> None:
        """Learn how long a stage has taken."""
        kind = _kind(stage)
        before, passes = self._measured.get(kind, (0.0, 0.0))
        self._measured[kind] = (before + seconds, passes + self.passes(stage))

    def seconds(self, stage: Stage) -> float:
        """Estimate how long a stage takes. Before any was measured, only ratios are meaningful."""
        return self.passes(stage) * (self.rate(stage) or 1.0)

    def rate(self, stage: Stage) -> float | None:
        """Return the seconds of a forward pass: of the stage's kind or else of all kinds; None
        before any was measured."""
        found = self._measured.get(_kind(stage))
        if found is None:
            sums = list(zip(*self._measured.values(), strict=True))
            found = (math.fsum(sums[0]), math.fsum(sums[1])) if sums else None
        return found[0] / found[1] if found and found[1] else None

    def passes(self, stage: Stage) -> float:
        """Return the size of a stage, in forward passes of one example."""
        splits = self._data[stage.data]
        if isinstance(stage, StatesStage):
            return len(splits.train)
        if not isinstance(stage, TeacherStage | StudentStage):
            return len(splits.test)
        if isinstance(stage, StudentStage) and stage.method == "prompt":
            return len(splits.dev)
        training = stage.training
        evaluations = math.ceil(training.epochs / training.evaluate_epochs)
        trained = _PASSES_OF_A_STEP * training.epochs * len(training_examples(stage, splits))
        return trained + evaluations * len(splits.dev)


def _kind(stage: Stage) -> str:
    return f"student, {stage.method}" if isinstance(stage, StudentStage) else stage.kind
