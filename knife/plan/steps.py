"""The length of a training in optimizer steps, known before it starts."""

import math
from collections.abc import Sequence

import numpy as np

from knife.data.example import Example, Splits
from knife.data.examples import Examples, explained_count
from knife.plan.stage import StudentStage, TeacherStage


def training_examples(stage: TeacherStage | StudentStage, splits: Splits) -> Sequence[Example]:
    """Return the examples that a stage trains on; for a teacher, only those with a rationale."""
    if not isinstance(stage, TeacherStage):
        return splits.train
    train = Examples.of(splits.train)
    return train.take(np.flatnonzero(train.explained))


def total_steps(stage: TeacherStage | StudentStage, splits: Splits) -> int:
    """Return the optimizer steps of the whole training, if it does not stop early."""
    if isinstance(stage, StudentStage) and stage.method == "prompt":
        return 0
    teacher = isinstance(stage, TeacherStage)
    examples = explained_count(splits.train) if teacher else len(splits.train)
    return math.ceil(examples / stage.training.batch_size) * stage.training.epochs
