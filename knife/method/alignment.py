"""Distances between student and teacher states, for alignment.

Shapes: B examples, N points of the task input or answer tokens of all choices, H width.
"""

from typing import Literal

import torch
from torch import Tensor, nn

Distance = Literal["scaled_mse", "mse", "cosine", "layer_norm_mse"]


def state_distance(
    student_BNH: Tensor, teacher_BNH: Tensor, mask_BN: Tensor, distance: Distance, variance: float
) -> Tensor:
    """Return the mean distance over the positions of each example, (B,).

    The mean is over an example's own positions first, so that the loss of a batch is a mean
    over examples and splits exactly over workers. `scaled_mse` divides by the variance of the
    teacher's states: raw MSE over unnormalised middle layers is many times larger.
    `layer_norm_mse` first normalises each state by its own mean and variance (Ba et al. 2016,
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


def choice_divergence(student_BC: Tensor, teacher_BC: Tensor, exists_BC: Tensor) -> Tensor:
    """Return KL(teacher || student) of the choice distributions, (B,)."""
    teacher_BC = teacher_BC.float().log_softmax(-1)
    student_BC = student_BC.float().log_softmax(-1)
    terms_BC = teacher_BC.exp() * (teacher_BC - student_BC)
    return torch.where(exists_BC, terms_BC, 0.0).sum(-1)
