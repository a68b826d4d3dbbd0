"""Alignment of student and teacher states: the layer map and the distances.

Shapes: B examples, N positions (task-input tokens, or answer tokens of all choices), H width.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from knife.config import Layers
from knife.errors import UserError

Distance = Literal["scaled_mse", "mse", "cosine"]


def layer_map(
    layers: Layers, student_depth: int, teacher_depth: int, key: str = "align.input.layers"
) -> list[tuple[int, int]]:
    """Pairs of (student layer, teacher layer), counted from 1.

    `last` pairs the last layers, `all` each layer with the same one of a teacher that is as
    deep; pairs are taken as they are.

    Raises:
        UserError: the map does not fit the two depths; every fault at once.
    """
    if layers == "last":
        return [(student_depth, teacher_depth)]
    if layers == "all":
        if student_depth != teacher_depth:
            raise UserError(
                f"{key}: 'all' needs equal depths, but the student has {student_depth} layers and "
                f"the teacher {teacher_depth}; give pairs such as [[{student_depth}, "
                f"{teacher_depth}]] or 'last'"
            )
        return [(layer, layer) for layer in range(1, student_depth + 1)]
    faults = []
    for student, teacher in layers:
        if not 1 <= student <= student_depth:
            faults.append(f"{key}: student layer {student} must be from 1 to {student_depth}")
        if not 1 <= teacher <= teacher_depth:
            faults.append(f"{key}: teacher layer {teacher} must be from 1 to {teacher_depth}")
    if not layers:
        faults.append(f"{key}: must name at least one pair of layers")
    if len({student for student, _ in layers}) < len(layers):
        faults.append(f"{key}: a student layer stands in two pairs")
    if faults:
        raise UserError(*faults)
    return [(student, teacher) for student, teacher in layers]


def state_distance(
    student_BNH: Tensor, teacher_BNH: Tensor, mask_BN: Tensor, distance: Distance, variance: float
) -> Tensor:
    """Mean distance over the positions of each example, (B,).

    The mean goes over an example's own positions first, so that the loss of a batch is a mean
    over examples and splits over workers exactly. `scaled_mse` divides by the variance of the
    teacher's states: raw MSE over unnormalised middle layers is many times stronger.
    """
    student_BNH, teacher_BNH = student_BNH.float(), teacher_BNH.float()
    if distance == "cosine":
        each_BN = 1 - nn.functional.cosine_similarity(student_BNH, teacher_BNH, dim=-1)
    else:
        each_BN = (student_BNH - teacher_BNH).square().mean(-1)
        if distance == "scaled_mse":
            each_BN = each_BN / variance
    return (each_BN * mask_BN).sum(-1) / mask_BN.sum(-1).clamp(min=1)


def choice_divergence(student_BC: Tensor, teacher_BC: Tensor, exists_BC: Tensor) -> Tensor:
    """KL(teacher || student) of the choice distributions, (B,)."""
    teacher_BC = teacher_BC.float().log_softmax(-1)
    student_BC = student_BC.float().log_softmax(-1)
    terms_BC = teacher_BC.exp() * (teacher_BC - student_BC)
    return torch.where(exists_BC, terms_BC, 0.0).sum(-1)
