import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy
from small import EXAMPLES, batch_of, save_tiny_bert, tokens_of
from torch import Tensor

from knife.config.run import Align, InputAlignment, OutputAlignment
from knife.core.errors import UserError
from knife.data.batches import Batch
from knife.method.alignment import Distance, choice_divergence, state_distance
from knife.method.layers import layer_map
from knife.method.objective import Alignment, Objective, TeacherBatch
from knife.method.states import OnlineTeacher
from knife.models.load import load_backbone
from knife.models.tokenizer import load_tokenizer
from knife.train.engine import gathered_state


def test_layer_maps_that_fit() -> None:
    assert layer_map("last", 2, 6) == [(2, 6)]
    assert layer_map("all", 3, 3) == [(1, 1), (2, 2), (3, 3)]
    assert layer_map([(1, 3), (2, 6)], 2, 6) == [(1, 3), (2, 6)]
    assert layer_map("uniform", 2, 6) == [(1, 3), (2, 6)]
    assert layer_map("uniform", 3, 4) == [(1, 2), (2, 3), (3, 4)]
    assert layer_map("uniform", 4, 2) == [(1, 1), (2, 1), (3, 2), (4, 2)]
    assert layer_map("uniform", 5, 5) == layer_map("all", 5, 5)
    # Two student layers may be aligned with the same teacher layer.
    assert layer_map([(1, 6), (2, 6)], 2, 6) == [(1, 6), (2, 6)]


def test_layer_maps_that_do_not_fit_name_every_error() -> None:
    with pytest.raises(UserError) as caught:
        layer_map("all", 2, 6)
    assert caught.value.errors == [
        "align.input.layers: 'all' needs equal depths, but the student has 2 layers and the "
        "teacher 6; give pairs such as [[2, 6]], 'uniform' or 'last'"
    ]
    with pytest.raises(UserError) as caught:
        layer_map([(0, 7), (3, 1), (3, 2)], 2, 6)
    assert caught.value.errors == [
        "align.input.layers: student layer 0 must be from 1 to 2",
        "align.input.layers: teacher layer 7 must be from 1 to 6",
        "align.input.layers: student layer 3 must be from 1 to 2",
        "align.input.layers: student layer 3 must be from 1 to 2",
        "align.input.layers: a student layer is in two pairs",
    ]
    with pytest.raises(UserError) as caught:
        layer_map([], 2, 6, "methods.x.align.input.layers")
    assert caught.value.errors == [
        "methods.x.align.input.layers: must name at least one pair of layers"
    ]


STUDENT = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [9.0, 9.0]], [[1.0, 0.0], [8.0, 8.0], [0.0, 7.0]]])
TEACHER = torch.tensor([[[1.0, 0.0], [0.0, 4.0], [0.0, 0.0]], [[0.0, 2.0], [1.0, 1.0], [5.0, 0.0]]])
MASK = torch.tensor([[1, 1, 0], [1, 0, 0]])


@pytest.mark.parametrize(
    ("distance", "expected"),
    [
        # First example: (0 + 4) / 2 and (9 + 0) / 2, and their mean; second: (1 + 4) / 2.
        ("mse", [3.25, 2.5]),
        ("scaled_mse", [3.25 / 4, 2.5 / 4]),
        # 1 - 1/sqrt(5) and 1 - 16/(5 * 4); 1 - 0.
        ("cosine", [(1 - 1 / math.sqrt(5) + 0.2) / 2, 1.0]),
        # Layer normalisation maps any two different numbers to -1 and 1.
        ("layer_norm_mse", [(4 + 0) / 2, 4.0]),
    ],
)
def test_distances_by_hand(distance: Distance, expected: list[float]) -> None:
    found = state_distance(STUDENT, TEACHER, MASK, distance, 4.0)
    assert found.tolist() == pytest.approx(expected, rel=1e-4)


def test_the_mean_goes_over_an_examples_own_tokens() -> None:
    """An example counts the same at any length and any padding of its batch."""
    alone = state_distance(STUDENT[1:, :1], TEACHER[1:, :1], MASK[1:, :1], "mse", 1.0)
    assert alone.tolist() == pytest.approx([2.5])
    nothing = state_distance(STUDENT, TEACHER, torch.zeros_like(MASK), "mse", 1.0)
    assert nothing.tolist() == [0.0, 0.0]


def test_choice_divergence_is_scipys() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 5, 4).unbind()
    exists = torch.ones(5, 4, dtype=torch.bool)
    exists[2, 3] = exists[4, 2] = exists[4, 3] = False
    low = torch.finfo(torch.float32).min
    student, teacher = student.masked_fill(~exists, low), teacher.masked_fill(~exists, low)
    found = choice_divergence(student, teacher, exists)
    for row in range(5):
        own = exists[row].numpy()
        p, q = (softmax(x[row].numpy()[own]) for x in (teacher, student))
        assert float(found[row]) == pytest.approx(entropy(p, q), rel=1e-5)
    assert choice_divergence(teacher, teacher, exists).tolist() == pytest.approx([0] * 5, abs=1e-7)


def test_missing_choices_give_no_gradient_that_is_not_a_number() -> None:
    low = torch.finfo(torch.float32).min
    student = torch.tensor([[0.5, -1.0, low]], requires_grad=True)
    teacher, exists = torch.tensor([[2.0, 0.0, low]]), torch.tensor([[True, True, False]])
    (gradient,) = torch.autograd.grad(choice_divergence(student, teacher, exists).sum(), student)
    assert gradient.isfinite().all()
    assert gradient[0, 2] == 0


BOTH = Align(input=InputAlignment(weight=3.0), output=OutputAlignment(weight=0.5))


def aligned(backbone: Any, teacher: Any, align: Align = BOTH) -> Objective:
    """Return an objective with alignment of the last layers, in evaluation mode."""
    layers = ((backbone.depth, teacher.depth),)
    variance = {teacher.depth: 2.0}
    torch.manual_seed(0)
    settings = Alignment(align, layers, teacher.width, teacher.output_width, variance)
    return Objective(backbone, settings).eval()


def batches(folder: Path) -> tuple[Batch, Batch]:
    tokens, pad = tokens_of(folder, EXAMPLES)
    student, teacher = (batch_of(tokens, pad, rationale=r) for r in (False, True))
    return student, teacher


def test_the_loss_is_the_weighted_sum_of_its_parts(model_folder: Path) -> None:
    backbone = load_backbone(model_folder)
    teacher = load_backbone(model_folder, bottleneck=False)
    objective = aligned(backbone, teacher)
    student_batch, teacher_batch = batches(model_folder)
    target = OnlineTeacher(teacher, [teacher.depth]).batch(teacher_batch)
    losses = objective(student_batch, target)
    parts = {name: float(value) for name, value in losses.parts.items()}
    assert set(parts) == {"task_loss", "input_alignment", "output_alignment", "loss"}
    assert parts["input_alignment"] > 0
    whole = parts["task_loss"] + 3.0 * parts["input_alignment"] + 0.5 * parts["output_alignment"]
    assert parts["loss"] == pytest.approx(whole, rel=1e-6)
    assert float(losses.loss.detach()) == parts["loss"]
    task = torch.nn.functional.cross_entropy(losses.scores_BC, student_batch.answer_B)
    assert parts["task_loss"] == pytest.approx(float(task.detach()), rel=1e-5)
    # Without a teacher's states (on dev), and without weights, only the task loss remains.
    assert set(objective(student_batch).parts) == {"task_loss", "loss"}
    off = Align(input=InputAlignment(weight=0), output=OutputAlignment(weight=0))
    assert set(aligned(backbone, teacher, off)(student_batch, target).parts) == {
        "task_loss",
        "loss",
    }


@pytest.mark.parametrize("target", ["states", "choices"])
def test_examples_without_a_rationale_have_no_alignment(model_folder: Path, target: Any) -> None:
    align = Align(output=OutputAlignment(weight=1.0, target=target))
    backbone = load_backbone(model_folder)
    teacher = load_backbone(model_folder, seed=1)
    objective = aligned(backbone, teacher, align)
    student_batch, teacher_batch = batches(model_folder)
    explained = student_batch.explained_B
    assert 0 < int(explained.sum()) < len(explained)
    right = OnlineTeacher(teacher, [teacher.depth]).batch(teacher_batch)

    def shifted(rows: Tensor) -> TeacherBatch:
        """Return the teacher's states, changed for some examples."""
        states = {layer: s + rows[:, None, None] for layer, s in right.input_states.items()}
        assert right.output_states_BCTH is not None
        assert right.scores_BC is not None
        output = right.output_states_BCTH + rows[:, None, None, None]
        scores_BC = right.scores_BC * (1 + rows[:, None].float())
        return TeacherBatch(states, right.task_input, output, scores_BC)

    loss = float(objective(student_batch, right).loss.detach())
    assert float(objective(student_batch, shifted(~explained)).loss.detach()) == loss
    assert float(objective(student_batch, shifted(explained)).loss.detach()) != loss


def test_unequal_widths_get_projections_that_are_trained_and_not_saved(
    tiny_bert: Path, tmp_path: Path
) -> None:
    save_tiny_bert(tmp_path / "wide", EXAMPLES, width=48)
    backbone, teacher = load_backbone(tiny_bert), load_backbone(tmp_path / "wide")
    objective = aligned(backbone, teacher)
    assert {n: tuple(p.shape) for n, p in objective.named_parameters() if "projection" in n} == {
        "input_projections.2.weight": (48, 32),
        "input_projections.2.bias": (48,),
        "output_projection.weight": (48, 32),
        "output_projection.bias": (48,),
    }
    student_batch, teacher_batch = batches(tiny_bert)
    target = OnlineTeacher(teacher, [2]).batch(teacher_batch)
    optimizer = torch.optim.AdamW(objective.parameters(), lr=1e-2)
    losses = []
    for _ in range(5):
        loss = objective(student_batch, target).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses == sorted(losses, reverse=True)
    for name, parameter in objective.named_parameters():
        if "projection" in name:
            assert parameter.grad is not None
            assert parameter.grad.abs().sum() > 0
    # A step moves the projections: the loss falls with the backbone frozen as well.
    backbone.requires_grad_(False)
    frozen = torch.optim.AdamW([p for p in objective.parameters() if p.requires_grad], lr=1e-2)
    before = objective(student_batch, target).loss
    before.backward()
    frozen.step()
    assert objective(student_batch, target).loss < before
    backbone.save(tmp_path / "student", gathered_state(objective.backbone))
    load_tokenizer(tiny_bert, "model").save_pretrained(tmp_path / "student")
    again = load_backbone(tmp_path / "student").eval()
    with torch.no_grad():
        scores = objective(student_batch).scores_BC
        assert torch.equal(again(student_batch).scores_BC, scores)


def test_equal_widths_need_no_projection(model_folder: Path) -> None:
    backbone = load_backbone(model_folder)
    objective = aligned(backbone, load_backbone(model_folder))
    assert sum(p.numel() for p in objective.parameters()) == sum(
        p.numel() for p in backbone.parameters()
    )


@pytest.mark.parametrize("distance", ["scaled_mse", "mse", "cosine", "layer_norm_mse"])
def test_tokens_that_are_not_chosen_do_not_count(model_folder: Path, distance: Distance) -> None:
    """With `content`, the teacher's other tokens have no effect; `mean` uses only their mean."""
    backbone, teacher = load_backbone(model_folder), load_backbone(model_folder, seed=1)
    student_batch, teacher_batch = batches(model_folder)
    right = OnlineTeacher(teacher, [teacher.depth]).batch(teacher_batch)
    content_BI = student_batch.content_mask_BL

    def loss(tokens: Any, added_BI: Tensor) -> float:
        align = Align(input=InputAlignment(tokens=tokens, distance=distance))
        objective = aligned(backbone, teacher, align)
        columns = right.input_states[teacher.depth].shape[1]
        states_BIH = right.input_states[teacher.depth].clone()
        # Not the same for all elements, which layer normalisation would remove.
        states_BIH[..., 0] += added_BI[:, :columns]
        moved = replace(right, input_states={teacher.depth: states_BIH})
        return float(objective(student_batch, moved).parts["input_alignment"])

    nothing = torch.zeros_like(content_BI)
    other = 5 * (student_batch.input_mask_BL - content_BI)
    assert loss("content", other) == loss("content", nothing)
    assert loss("content", 5 * content_BI) != loss("content", nothing)
    assert loss("all", other) != loss("all", nothing)
    # Adding to the first token what is subtracted from the second one does not change their mean.
    swapped = nothing.clone()
    swapped[:, 0], swapped[:, 1] = 5, -5
    assert loss("mean", swapped) == pytest.approx(loss("mean", nothing), rel=1e-4)
    assert loss("mean", other) != pytest.approx(loss("mean", nothing), rel=1e-4)
