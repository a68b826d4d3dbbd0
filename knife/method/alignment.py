"""Alignment of student and teacher states: the layer map and the distances.

Shapes: B examples, N positions (task-input tokens, or answer tokens of all choices), H width.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from knife.config.run import Align, Layers
from knife.core.errors import UserError

Distance = Literal["scaled_mse", "mse", "cosine", "layer_norm_mse"]


def layer_map(
    layers: Layers, student_depth: int, teacher_depth: int, key: str = "align.input.layers"
) -> list[tuple[int, int]]:
    """Pairs of (student layer, teacher layer), counted from 1.

    `last` pairs the last layers, `all` each layer with the same one of a teacher that is as
    deep; `uniform` spreads the student's n layers over the teacher's m, layer l looking at
    ceil(l m / n), so that the last ones are paired; pairs are taken as they are.

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
                f"{teacher_depth}]], 'uniform' or 'last'"
            )
        return [(layer, layer) for layer in range(1, student_depth + 1)]
    if layers == "uniform":
        each = range(1, student_depth + 1)
        return [(layer, -(-layer * teacher_depth // student_depth)) for layer in each]
    faults = []
    for student, teacher in layers:
        if not 1 <= student <= student_depth:
            faults.append(f"{key}: student layer {student} must be from 1 to {student_depth}")
        if not 1 <= teacher <= teacher_depth:
            faults.append(f"{key}: teacher layer {teacher} must be from 1 to {teacher_depth}")
    if not layers:
        faults.append(f"{key}: must name at least one pair of layers")
    if len({student for student, _ in layers}) < len(layers):
        faults.append(f"{key}: a student layer is in two pairs")
    if faults:
        raise UserError(*faults)
    return [(student, teacher) for student, teacher in layers]


def projection_faults(align: Align, student_width: int, teacher_width: int) -> list[str]:
    """Faults of states of other widths that are to be aligned without a projection."""
    output = align.output.weight and align.output.target == "states"
    if align.projection or student_width == teacher_width or not (align.input.weight or output):
        return []
    return [
        "align.projection: must be true, because the student's states are "
        f"{student_width} wide and the teacher's {teacher_width}, but got false; or give models "
        "of the same width"
    ]


def state_distance(
    student_BNH: Tensor, teacher_BNH: Tensor, mask_BN: Tensor, distance: Distance, variance: float
) -> Tensor:
    """Mean distance over the positions of each example, (B,).

    The mean goes over an example's own positions first, so that the loss of a batch is a mean
    over examples and splits over workers exactly. `scaled_mse` divides by the variance of the
    teacher's states: raw MSE over unnormalised middle layers is many times stronger.
    `layer_norm_mse` normalises each state by its own mean and variance first (Ba et al. 2016,
    arXiv 1607.06450, without gain and bias).
    """
    student_BNH, teacher_BNH = student_BNH.float(), teacher_BNH.float()
    if distance == "cosine":
        each_BN = 1 - nn.functional.cosine_similarity(student_BNH, teacher_BNH, dim=-1)
    else:
        if distance == "layer_norm_mse":
            width = teacher_BNH.shape[-1:]
            student_BNH = nn.functional.layer_norm(student_BNH, width)
            teacher_BNH = nn.functional.layer_norm(teacher_BNH, width)
        each_BN = (student_BNH - teacher_BNH).square().mean(-1)
        if distance == "scaled_mse":
            each_BN = each_BN / variance
    return (each_BN * mask_BN).sum(-1) / mask_BN.sum(-1).clamp(min=1)


def position_mean(states_BNH: Tensor, mask_BN: Tensor) -> Tensor:
    """The mean state of each example over its positions, (B, 1, H), in fp32."""
    weight_BN = mask_BN.float() / mask_BN.sum(-1, keepdim=True).clamp(min=1)
    return weight_BN.unsqueeze(1) @ states_BNH.float()


def choice_divergence(student_BC: Tensor, teacher_BC: Tensor, exists_BC: Tensor) -> Tensor:
    """KL(teacher || student) of the choice distributions, (B,)."""
    teacher_BC = teacher_BC.float().log_softmax(-1)
    student_BC = student_BC.float().log_softmax(-1)
    terms_BC = teacher_BC.exp() * (teacher_BC - student_BC)
    return torch.where(exists_BC, terms_BC, 0.0).sum(-1)
