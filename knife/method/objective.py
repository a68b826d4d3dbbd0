"""The training loss: the task loss on choices and, for `knife`, alignment with the teacher.

loss = cross-entropy over the choices' scores; for an open answer, over its tokens
     + w_in  * mean over aligned layers of the distance of task-input states      (KD-In)
     + w_out * distance of answer-side states, or KL of choice distributions      (KD-Out)

after Chan et al. 2022 (arXiv 2212.09721), section 3. Each term is a mean over examples; examples
without a rationale have no alignment terms, since the teacher knows no more about them.
Shapes: B examples, I task-input tokens, C choices, T tokens per choice, H width.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from knife.config.run import Align
from knife.data.batches import Batch
from knife.method.alignment import choice_divergence, state_distance
from knife.method.points import TaskInput, at_points, points
from knife.models.base import Output


@dataclass(frozen=True)
class TeacherBatch:
    """A frozen teacher's states for a batch, from the store or from an online teacher.

    Attributes:
        input_states: by teacher layer, (B, I, H), at the teacher's own tokens; zero at padding.
        task_input: these tokens.
        output_states_BCTH: answer-side states, or None if they are not needed.
        scores_BC: the teacher's scores of the choices, or None if they are not needed.
    """

    input_states: dict[int, Tensor]
    task_input: TaskInput
    output_states_BCTH: Tensor | None
    scores_BC: Tensor | None


@dataclass(frozen=True)
class Losses:
    """The loss of a batch, its parts (detached, by name) and the choices' scores.

    It has no slots, because ZeRO-3 inspects a module's output with `vars`.
    """

    loss: Tensor
    parts: dict[str, Tensor]
    scores_BC: Tensor


@dataclass(frozen=True)
class Alignment:
    """The alignment terms of `knife`: settings, checked layer map and the teacher's shape.

    Attributes:
        align: weights, distance and target.
        layers: pairs (student layer, teacher layer).
        teacher_width: width of the teacher's task-input states; None if none are aligned.
        teacher_output_width: width of its answer-side states; None if none are aligned.
        variance: variance of the teacher's states by layer, for `scaled_mse`.
    """

    align: Align
    layers: tuple[tuple[int, int], ...]
    teacher_width: int | None
    teacher_output_width: int | None
    variance: dict[int, float]


class Objective(nn.Module):
    """A backbone with its loss, as a single module that a training engine shards and saves.

    If teacher and student differ in width, a learned linear projection maps the student's states
    to the teacher's width; it is discarded with this module.
    """

    def __init__(
        self,
        backbone: Any,
        alignment: Alignment | None = None,
        rationale_weight: float = 0.5,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.alignment = alignment
        self.rationale_weight = rationale_weight
        self.input_projections = nn.ModuleDict()
        self.output_projection: nn.Module = nn.Identity()
        if alignment is None:
            return
        width = alignment.teacher_width
        if alignment.align.input.weight and width not in (None, backbone.width):
            self.input_projections = nn.ModuleDict(
                {str(student): nn.Linear(backbone.width, width) for student, _ in alignment.layers}
            )
        output, width = alignment.align.output, alignment.teacher_output_width
        aligned = output.weight and output.target == "states"
        if aligned and width not in (None, backbone.output_width):
            self.output_projection = nn.Linear(backbone.output_width, width)

    def forward(
        self,
        batch: Batch,
        teacher: TeacherBatch | None = None,
        explanation: Batch | None = None,
    ) -> Losses:
        """Compute the loss of a batch, with alignment terms if the teacher's states are given.

        `explanation` has the same examples for the task of generating their rationales, which has
        the `rationale_weight`, and the task to answer the rest (Hsieh et al. 2023, arXiv
        2305.02301, section 3.2).
        """
        aligned = self.alignment is not None and teacher is not None
        weight_in = self.alignment.align.input.weight if self.alignment and aligned else 0.0
        layers = [s for s, _ in self.alignment.layers] if self.alignment and weight_in else []
        output: Output = self.backbone(batch, layers)
        choice_B = nn.functional.cross_entropy(output.scores_BC, batch.answer_B, reduction="none")
        # The score of an answer is the mean log-probability of its tokens.
        task_B = torch.where(batch.open_B, -output.scores_BC[:, 0], choice_B)
        loss_B = task_B
        parts = {"task_loss": task_B}
        if self.alignment is not None and teacher is not None:
            terms = self._terms(self.alignment, batch, output, teacher)
            for name, (weight, term_B) in terms.items():
                term_B = term_B * batch.explained_B
                if weight:
                    loss_B = loss_B + weight * term_B
                parts[name] = term_B
        if explanation is not None:
            written_B = -self.backbone(explanation).scores_BC[:, 0] * batch.explained_B
            weight = self.rationale_weight
            both_B = (1 - weight) * task_B + weight * written_B
            loss_B = torch.where(batch.explained_B, both_B, task_B)
            parts["rationale_loss"] = written_B
        parts["loss"] = loss_B
        weight_B = batch.weight_B
        means = {name: (each_B * weight_B).mean() for name, each_B in parts.items()}
        loss = means["loss"]
        return Losses(loss, {n: m.detach() for n, m in means.items()}, output.scores_BC)

    def _terms(
        self, alignment: Alignment, batch: Batch, output: Output, teacher: TeacherBatch
    ) -> dict[str, tuple[float, Tensor]]:
        """Return alignment terms with their weights; one of weight 0 is reported, not trained."""
        align = alignment.align
        terms: dict[str, tuple[float, Tensor]] = {}
        if align.input.weight:
            each = []
            at = points(align.input.tokens, batch, teacher.task_input)
            for student_layer, teacher_layer in alignment.layers:
                states_BIH = output.input_states[student_layer]
                if str(student_layer) in self.input_projections:
                    states_BIH = self.input_projections[str(student_layer)](states_BIH)
                states_BNH = at_points(states_BIH, at.student_BNI)
                target_BNH = at_points(teacher.input_states[teacher_layer], at.teacher_BNI)
                distance = align.input.distance
                variance = alignment.variance[teacher_layer] if distance == "scaled_mse" else 1.0
                each.append(state_distance(states_BNH, target_BNH, at.mask_BN, distance, variance))
            terms["input_alignment"] = (align.input.weight, _mean(each))
            if len(each) > 1:
                for (layer, _), term_B in zip(alignment.layers, each, strict=True):
                    terms[f"input_alignment_layer_{layer}"] = (0.0, term_B.detach())
        if align.output.weight and align.output.target == "choices":
            assert teacher.scores_BC is not None, "scores were not computed"
            term_B = choice_divergence(output.scores_BC, teacher.scores_BC, batch.choice_exists_BC)
            terms["output_alignment"] = (align.output.weight, term_B)
        elif align.output.weight:
            assert teacher.output_states_BCTH is not None, "output states were not computed"
            states_BNH = self.output_projection(output.output_states_BCTH).flatten(1, 2)
            term_B = state_distance(
                states_BNH,
                teacher.output_states_BCTH.flatten(1, 2),
                output.output_mask_BCT.flatten(1),
                "mse",
                1.0,
            )
            terms["output_alignment"] = (align.output.weight, term_B)
        return terms


def _mean(each: Iterable[Tensor]) -> Tensor:
    terms = list(each)
    return sum(terms[1:], terms[0]) / len(terms)
