"""When its task changes, a training goes on with its weights and an optimizer begins anew."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small import EXAMPLES, tokens_of
from student import TRAINING, KilledError, Student, same_weights

from knife.compat.deepspeed import forget_moments
from knife.config.scale import Scale
from knife.data.batches import Batch, Rows, collate
from knife.data.forms import training_tokens
from knife.data.internalize import Removal
from knife.method.objective import Objective
from knife.models.load import load_backbone
from knife.models.source import EMBEDDED
from knife.models.tokenizer import load_tokenizer
from knife.train.context import PlainContext
from knife.train.engine import gathered_state, start_engine

TINY = EMBEDDED["tiny-t5"]
STAGES = (0, 1, 2, 3)


@pytest.fixture
def context() -> Iterator[PlainContext]:
    with PlainContext() as context:
        context.device = torch.device("cpu")
        yield context


def batches(count: int) -> list[Batch]:
    tokens, pad = tokens_of(TINY, EXAMPLES)
    return [collate(tokens, Rows([n, n + 1, n + 2], [1.0] * 3), pad, False) for n in range(count)]


def moments(engine: Any) -> list[torch.Tensor]:
    """Return all that the optimizer remembers."""
    optimizer = getattr(engine.optimizer, "optimizer", engine.optimizer)
    return [value for state in optimizer.state.values() for value in state.values()]


def step(engine: Any, batch: Batch) -> None:
    engine.backward(engine(batch).loss)
    engine.step()


@pytest.mark.usefixtures("context")
@pytest.mark.parametrize("zero_stage", STAGES)
def test_the_next_step_is_the_first_one_of_a_new_optimizer(zero_stage: int) -> None:
    training = TRAINING.model_copy(update={"warmup": 0.0})
    torch.manual_seed(0)
    objective = Objective(load_backbone(TINY))
    engine = start_engine(objective, training, Scale(zero_stage=zero_stage), 1, 100)
    *before, last = batches(4)
    # Without dropout, as the reference has to compute the same gradients.
    engine.eval()
    for batch in before:
        step(engine, batch)
    weights = gathered_state(engine.module)
    rate = engine.get_lr()[0]
    forget_moments(engine)
    step(engine, last)
    found = gathered_state(engine.module)
    engine.destroy()

    plain = Objective(load_backbone(TINY)).eval()
    plain.load_state_dict(weights, strict=False)
    parameters = [p for p in plain.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=training.weight_decay)
    torch.autograd.backward(plain(last).loss)
    torch.nn.utils.clip_grad_norm_(parameters, training.clip)
    optimizer.step()
    off, moved = [], []
    for name, parameter in plain.named_parameters():
        off.append(float((found[name] - parameter).abs().mean()))
        moved.append(float((found[name] - weights[name]).abs().mean()))
    # In its first step AdamW divides each gradient by its size: tiny ones by hardly more than
    # their rounding, so that single weights may be off.
    assert max(off) < max(moved) / 100
    assert max(moved) > rate / 2


@pytest.mark.usefixtures("context")
@pytest.mark.parametrize("zero_stage", STAGES)
def test_in_bf16_all_that_was_remembered_is_forgotten(zero_stage: int) -> None:
    scale = Scale(zero_stage=zero_stage, precision="bf16")
    engine = start_engine(Objective(load_backbone(TINY)), TRAINING, scale, 1, 100)
    first, second = batches(2)
    step(engine, first)
    assert all(value.any() for value in moments(engine) if not value.ndim)
    assert any(value.any() for value in moments(engine) if value.ndim)
    forget_moments(engine)
    assert moments(engine)
    assert not any(value.any() for value in moments(engine))
    step(engine, second)
    assert {float(value) for value in moments(engine) if not value.ndim} == {1.0}
    engine.destroy()


@pytest.mark.parametrize(("checkpoint_steps", "fail_at"), [(3, 6), (3, 8), (4, 6), (4, 12)])
def test_a_training_that_resumes_removes_and_forgets_the_same(
    checkpoint_steps: int, fail_at: int, context: PlainContext, tmp_path: Path
) -> None:
    student = Student(TINY, checkpoint_steps=checkpoint_steps)
    tokens = student.job.train
    forgotten: list[int] = []

    def train(work: Path, fail_at: int = -1) -> list[dict[str, Any]]:
        # Another start has removed nothing yet.
        removal = Removal(4, 8)

        def anew(epoch: int) -> bool:
            forgotten.append(epoch)
            return removal.anew(epoch)

        made, _ = training_tokens("internalize", tokens, load_tokenizer(TINY, "model"), removal)
        student.job = replace(student.job, train=made, begin=removal.begin, anew=anew)
        return student.train(work, context, fail_at)

    whole = train(tmp_path / "whole")
    assert forgotten == [0, 1, 2]
    with pytest.raises(KilledError):
        train(tmp_path / "cut", fail_at)
    assert train(tmp_path / "cut") == whole
    assert same_weights(tmp_path / "cut", tmp_path / "whole")
    # A training that forgets nothing ends elsewhere.
    student.job = replace(student.job, anew=None)
    student.train(tmp_path / "other", context)
    assert not same_weights(tmp_path / "other", tmp_path / "whole")


@pytest.mark.parametrize(("changes", "epochs"), [(True, 3), (False, 2)])
def test_patience_waits_for_the_last_task(
    changes: bool, epochs: int, context: PlainContext, tmp_path: Path
) -> None:
    """Nothing is learned, so that every evaluation but the first is worse."""
    still = TRAINING.model_copy(update={"learning_rate": 1e-12, "patience": 1})
    student = Student(TINY, still)
    if changes:
        student.job = replace(student.job, anew=Removal(4, 8).anew)
    student.train(tmp_path, context)
    trained = json.loads((tmp_path / "trained.json").read_text())
    assert trained["epochs"] == epochs
