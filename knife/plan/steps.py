"""The length of a training in optimizer steps, known before it starts."""

import math

from knife.data.example import Example, Splits
from knife.plan.stage import StudentStage, TeacherStage


def training_examples(stage: TeacherStage | StudentStage, splits: Splits) -> list[Example]:
    """Return the examples that a stage trains on; for a teacher, only those with a rationale."""
    if isinstance(stage, TeacherStage):
        return [example for example in splits.train if example.rationale is not None]
    return splits.train


def total_steps(stage: TeacherStage | StudentStage, splits: Splits) -> int:
    """Return the optimizer steps of the whole training, if it does not stop early."""
    if isinstance(stage, StudentStage) and stage.method == "prompt":
        return 0
    examples = len(training_examples(stage, splits))
    return math.ceil(examples / stage.training.batch_size) * stage.training.epochs
