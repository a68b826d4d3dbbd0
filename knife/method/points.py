"""The points at which the states of teacher and student are compared: tokens, or means over tokens.

With `align.input.tokens: all` or `content` the points are tokens that both models have. With `mean`
the only point is the mean over all task-input tokens, and with `words` each word is one: the mean
over the tokens that belong to it. There each model has tokens of its own.
Shapes: B examples, I task-input tokens of one model, N points, H width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from knife.config.run import InputTokens
from knife.data.batches import Batch


@dataclass(frozen=True)
class TaskInput:
    """A model's own task-input tokens.

    Attributes:
        mask_BI: 1 at them, 0 at padding.
        words_BI2: the words that each belongs to: the first and one past the last, equal if there
            is none.
    """

    mask_BI: Tensor
    words_BI2: Tensor

    @staticmethod
    def of(batch: Batch) -> "TaskInput":
        """Return the task-input tokens of a batch."""
        columns = int(batch.input_mask_BL.sum(1).max())
        return TaskInput(batch.input_mask_BL[:, :columns], batch.words_BL2[:, :columns])


@dataclass(frozen=True)
class Points:
    """The points of a batch.

    Attributes:
        mask_BN: 1 at the points that an example has.
        student_BNI, teacher_BNI: the weights with which each model's states are added up to those
            of the points; None if the points are tokens.
    """

    mask_BN: Tensor
    student_BNI: Tensor | None = None
    teacher_BNI: Tensor | None = None


def points(tokens: InputTokens, batch: Batch, teacher: TaskInput) -> Points:
    """Return the points of a student's batch and the teacher's tokens, by `align.input.tokens`.

    Raises:
        ValueError: tokens are to be compared, but teacher and student have different ones.
    """
    student = TaskInput.of(batch)
    if tokens == "mean":
        weights = [_weights(each.mask_BI.unsqueeze(1)) for each in (student, teacher)]
        return Points(student.mask_BI[:, :1], *weights)
    if tokens == "words":
        count = int(torch.stack([each.words_BI2.max() for each in (student, teacher)]).min())
        members = [_members(each.words_BI2, count) for each in (student, teacher)]
        mask_BN = members[0].any(-1) & members[1].any(-1)
        return Points(mask_BN, *map(_weights, members))
    if not torch.equal(student.mask_BI, teacher.mask_BI):
        raise ValueError("the teacher's states are at other task-input tokens than the student's")
    if tokens == "content":
        return Points(batch.content_mask_BL[:, : student.mask_BI.shape[1]])
    return Points(student.mask_BI)


def at_points(states_BIH: Tensor, weights_BNI: Tensor | None) -> Tensor:
    """Return a model's states at the points, (B, N, H); means over tokens are in fp32."""
    return states_BIH if weights_BNI is None else weights_BNI @ states_BIH.float()


def _members(words_BI2: Tensor, count: int) -> Tensor:
    """Return which tokens belong to each of the first `count` words, (B, N, I)."""
    word_N1 = torch.arange(count, device=words_BI2.device).unsqueeze(1)
    first_B1I, end_B1I = words_BI2.unsqueeze(1).unbind(-1)
    return (first_B1I <= word_N1) & (word_N1 < end_B1I)


def _weights(members_BNI: Tensor) -> Tensor:
    """Return the weights of means over the members of each point; all 0 if it has none."""
    return members_BNI.float() / members_BNI.sum(-1, keepdim=True).clamp(min=1)
