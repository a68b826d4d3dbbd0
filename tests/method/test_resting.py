"""Every trained parameter gets a gradient in every batch.

DeepSpeed's stages treat a parameter without one differently: some decay it, and stage 3 moves it by
its last gradient.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small import EXAMPLES, save_tiny_bert, save_tiny_gpt2, save_tiny_llama, tokens_of
from torch import Tensor

from knife.config.run import Align, Training
from knife.config.scale import Scale
from knife.data.batches import Batch, Rows, collate
from knife.data.forms import training_tokens
from knife.data.tokens import Tokens
from knife.method.objective import Alignment, Objective, TeacherBatch
from knife.method.states import OnlineTeacher
from knife.models.load import load_backbone
from knife.models.source import EMBEDDED
from knife.models.tokenizer import load_tokenizer
from knife.train.context import PlainContext
from knife.train.engine import gathered_state, start_engine

KINDS = ("t5", "bert", "llama", "gpt2")
EXPLAINED = [row for row, example in enumerate(EXAMPLES) if example.rationale][:4]
BARE = [row for row, example in enumerate(EXAMPLES) if not example.rationale][:4]
BATCHES = {"with rationales": EXPLAINED, "without": BARE, "mixed": EXPLAINED[:2] + BARE[:2]}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    save_tiny_bert(folder / "bert", EXAMPLES, dropout=0.0)
    save_tiny_llama(folder / "llama", EXAMPLES)
    save_tiny_gpt2(folder / "gpt2", EXAMPLES, dropout=0.0)
    return {kind: folder / kind for kind in KINDS[1:]} | {"t5": EMBEDDED["tiny-t5"]}


def batch_of(tokens: Sequence[Tokens], pad: int, rows: list[int], *, rationale: bool) -> Batch:
    return collate(tokens, Rows(rows, [1.0] * len(rows)), pad, rationale)


def resting(objective: torch.nn.Module, *inputs: Any) -> list[str]:
    """Return trained parameters without a gradient."""
    objective.zero_grad()
    objective(*inputs).loss.backward()
    named = objective.named_parameters()
    return [name for name, p in named if p.requires_grad and p.grad is None]


def aligned(backbone: Any, *, output: str, wider: int) -> Objective:
    """Return a knife objective, for a teacher that is `wider` than the student by this much."""
    values: dict[str, Any] = {"output": {"weight": 1.0, "target": output}} if output else {}
    depth = backbone.depth
    return Objective(
        backbone,
        Alignment(
            Align.model_validate(values),
            ((1, 1), (depth, depth)),
            backbone.width + wider,
            backbone.output_width + wider,
            {1: 1.0, depth: 1.0},
        ),
    )


def states(teacher: OnlineTeacher, batch: Batch, wider: int) -> TeacherBatch:
    """Return the teacher's states, made `wider` with zeros."""

    def widened(tensor: Tensor) -> Tensor:
        return torch.nn.functional.pad(tensor, (0, wider))

    found = teacher.batch(batch)
    assert found.output_states_BCTH is not None
    return replace(
        found,
        input_states={layer: widened(tensor) for layer, tensor in found.input_states.items()},
        output_states_BCTH=widened(found.output_states_BCTH),
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bottleneck", [True, False])
def test_teachers_and_plain_students(folders: dict[str, Path], kind: str, bottleneck: bool) -> None:
    folder = folders[kind]
    tokens, pad = tokens_of(folder, EXAMPLES)
    objective = Objective(load_backbone(folder, bottleneck=bottleneck)).train()
    for rows in BATCHES.values():
        for rationale in (True, False):
            assert resting(objective, batch_of(tokens, pad, rows, rationale=rationale)) == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("output", ["", "states", "choices"])
@pytest.mark.parametrize("wider", [0, 8])
def test_aligned_students(folders: dict[str, Path], kind: str, output: str, wider: int) -> None:
    folder = folders[kind]
    tokens, pad = tokens_of(folder, EXAMPLES)
    backbone = load_backbone(folder)
    teacher = OnlineTeacher(load_backbone(folder), [1, backbone.depth])
    objective = aligned(backbone, output=output, wider=wider).train()
    assert len(objective.input_projections) == (2 if wider else 0)
    for rows in BATCHES.values():
        batch = batch_of(tokens, pad, rows, rationale=False)
        whole = batch_of(tokens, pad, rows, rationale=True)
        assert resting(objective, batch, states(teacher, whole, wider)) == []


@pytest.mark.parametrize("kind", ["t5", "llama", "gpt2"])
def test_students_that_write(folders: dict[str, Path], kind: str) -> None:
    folder = folders[kind]
    tokenizer = load_tokenizer(folder, "model")
    tokens, pad = tokens_of(folder, EXAMPLES)
    for method in ("step_by_step", "explain_then_answer"):
        first, explanations = training_tokens(method, tokens, tokenizer)
        objective = Objective(load_backbone(folder)).train()
        for rows in BATCHES.values():
            batch = batch_of(first, pad, rows, rationale=False)
            second = batch_of(explanations, pad, rows, rationale=False) if explanations else None
            assert resting(objective, batch, None, second) == []


@pytest.mark.parametrize("kind", ["t5", "bert"])
def test_stage_3_ends_where_stage_0_does_after_batches_without_rationales(
    folders: dict[str, Path], kind: str
) -> None:
    """Also projections of unequal widths, whose gradients are then exactly 0."""
    folder = folders[kind]
    tokens, pad = tokens_of(folder, EXAMPLES)
    backbone = load_backbone(folder)
    teacher = OnlineTeacher(backbone, [1, backbone.depth])
    training = Training(epochs=1, learning_rate=3e-4, batch_size=4, weight_decay=0.1)
    found = []
    for stage in (0, 3):
        torch.manual_seed(0)
        objective = aligned(load_backbone(folder), output="states", wider=8)
        with PlainContext() as context:
            context.device = torch.device("cpu")
            engine = start_engine(objective, training, Scale(zero_stage=stage), 1, 6)
            engine.train()
            for rows in (EXPLAINED, EXPLAINED, BARE, BARE, BARE):
                batch = batch_of(tokens, pad, rows, rationale=False)
                whole = batch_of(tokens, pad, rows, rationale=True)
                engine.backward(engine(batch, states(teacher, whole, 8)).loss)
                engine.step()
            found.append(gathered_state(engine.module))
            engine.destroy()
    assert any("projection" in name for name in found[0])
    for name, tensor in found[0].items():
        # Softmax is invariant to these shifts: their gradient is 0 up to rounding, which AdamW
        # amplifies. A parameter that moves by an old gradient does so by far more.
        atol = 1e-4 if name.endswith(("key.bias", "score.bias")) else 1e-5
        torch.testing.assert_close(found[1][name], tensor, atol=atol, rtol=0)
