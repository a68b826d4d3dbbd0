"""Attention, gradient checkpointing and torch.compile in real engines keep the losses."""

from pathlib import Path
from typing import Any

import pytest
import torch
from measured import measure
from small import EXAMPLES, batch_of, save_tiny_bert, tokens_of
from transformers import PreTrainedModel, T5Config, T5ForConditionalGeneration

from knife.config.run import Training
from knife.config.scale import Scale
from knife.data.batches import Batch, Rows, collate
from knife.data.tokens import Tokens
from knife.method.objective import Objective
from knife.models.load import load_backbone
from knife.models.tokenizer import model_config
from knife.plan.memory import Lengths, training_need
from knife.plan.model_size import model_size
from knife.train.context import PlainContext
from knife.train.engine import gathered_state, start_engine
from knife.train.scaled import scaled


def losses(folder: Path, batch: Batch, **values: Any) -> list[float]:
    """Return the losses of a few steps on one batch, with dropout."""
    scale = Scale.model_validate(values)
    torch.manual_seed(0)
    objective = Objective(scaled(load_backbone(folder), scale))
    names = set(gathered_state(Objective(load_backbone(folder))))
    training = Training(batch_size=len(batch.row_B), learning_rate=3e-3)
    with PlainContext():
        engine = start_engine(objective, training, scale, 1, 10)
        engine.train()
        found = []
        for _ in range(3):
            loss = engine(batch, None).loss
            engine.backward(loss)
            engine.step()
            found.append(float(loss.detach()))
        # Weights are saved under the names that are loaded.
        assert set(gathered_state(engine.module)) == names
        engine.destroy()
    return found


def student_batch(folder: Path) -> Batch:
    tokens, pad = tokens_of(folder, EXAMPLES)
    return batch_of(tokens, pad, rationale=False)


def test_attention_and_checkpointing_leave_the_losses(model_folder: Path) -> None:
    batch = student_batch(model_folder)
    eager = losses(model_folder, batch, attention="eager")
    assert losses(model_folder, batch, attention="sdpa") == pytest.approx(eager, rel=1e-5)
    for stage in (0, 2, 3):
        again = losses(model_folder, batch, gradient_checkpointing=True, zero_stage=stage)
        assert again == pytest.approx(eager, rel=1e-5)


def test_every_part_of_a_model_gets_the_attention(model_folder: Path) -> None:
    for attention in ("eager", "sdpa"):
        backbone = scaled(load_backbone(model_folder), Scale(attention=attention))
        parts = [m for m in backbone.modules() if isinstance(m, PreTrainedModel)]
        assert {part.config._attn_implementation for part in parts} == {attention}
    assert all(not part.is_gradient_checkpointing for part in parts)
    again = scaled(load_backbone(model_folder), Scale(gradient_checkpointing=True))
    assert any(m.is_gradient_checkpointing for m in again.modules() if m in list(again.children()))


@pytest.mark.faults
def test_compiled_code_leaves_the_losses(tiny_bert_without_dropout: Path) -> None:
    """Takes minutes of g++; with dropout, compiled code draws other masks."""
    batch = student_batch(tiny_bert_without_dropout)
    plain = losses(tiny_bert_without_dropout, batch)
    assert losses(tiny_bert_without_dropout, batch, compile=True) == pytest.approx(plain, rel=1e-5)


@pytest.fixture
def tiny_bert_without_dropout(tmp_path: Path) -> Path:
    save_tiny_bert(tmp_path, EXAMPLES, dropout=0)
    return tmp_path


def test_checkpointing_takes_the_memory_of_the_formula(tmp_path: Path) -> None:
    """Six layers of long texts, so that activations dominate."""
    config = T5Config(
        vocab_size=500, d_model=64, d_ff=256, d_kv=16, num_heads=4, num_layers=6,
        decoder_start_token_id=0,
    )  # fmt: skip
    T5ForConditionalGeneration(config).save_pretrained(tmp_path)
    tokens = [Tokens([*range(3, 98), 1], [], [[5, 6, 1]] * 2, [(0, 1)] * 2, 0)]
    batch = collate(tokens * 8, Rows(list(range(8)), [1.0] * 8), 0, False)
    size = model_size(model_config(tmp_path, "model"), tmp_path)
    assert size
    peaks = []
    for again in (False, True):
        scale = Scale(gradient_checkpointing=again)
        with PlainContext() as context:
            found = measure(tmp_path, scale, batch, context)
        lengths = Lengths(96, 96, 2, 3, 0, 0, 0, 0)
        need = training_need(size, Training(batch_size=8), scale, lengths, rationale=False)
        assert 0.85 < found.peak / need.peak < 1.2
        peaks.append(found.peak)
    assert peaks[1] < peaks[0] / 2
