"""Saved buffers, numbers of a model that are not trained, are saved and loaded like its weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModel, AutoTokenizer, IBertConfig

from knife.core.errors import UserError
from knife.models.check import check_model
from knife.models.load import load_backbone
from knife.models.weights import saved_buffers
from knife.train.engine import gathered_state

SHIFT = "encoder.layer.0.output.LayerNorm.shift"
State = dict[str, Tensor]


@pytest.fixture
def ibert(tiny_bert: Path, tmp_path: Path) -> Path:
    """Return an I-BERT, which has buffers for its quantisation, with numbers of its own in them."""
    folder = tmp_path / "ibert"
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    tokenizer.save_pretrained(folder)
    config = IBertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=256, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = AutoModel.from_config(config)
    for number, buffer in enumerate(saved_buffers(model).values()):
        buffer.fill_(number + 0.5)
    model.save_pretrained(folder)
    return folder


def change(folder: Path, changed: Callable[[State], State]) -> None:
    """Save other weights into a model folder."""
    path = folder / "model.safetensors"
    state = {name: tensor.clone() for name, tensor in load_file(path).items()}
    save_file(changed(state), path, metadata={"format": "pt"})


def test_buffers_come_back_as_they_were(ibert: Path, tmp_path: Path) -> None:
    assert check_model(ibert, "model.student").weights.parameters
    backbone: Any = load_backbone(ibert)
    before = saved_buffers(backbone.encoder)
    assert {float(buffer.flatten()[0]) for buffer in before.values()} == {
        number + 0.5 for number in range(len(before))
    }
    before[SHIFT].fill_(-7.0)
    again = tmp_path / "again"
    backbone.save(again, gathered_state(backbone))
    AutoTokenizer.from_pretrained(ibert).save_pretrained(again)
    check_model(again, "model.student")
    reloaded: Any = load_backbone(again)
    after = saved_buffers(reloaded.encoder)
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], buffer) for name, buffer in before.items())
    assert load_file(again / "model.safetensors").keys() == load_file(
        ibert / "model.safetensors"
    ).keys()  # fmt: skip


def test_what_a_model_computes_itself_is_not_saved(model_folder: Path) -> None:
    """Tables of positions and rotary frequencies are no part of the files of today's models."""
    backbone = load_backbone(model_folder)
    assert gathered_state(backbone).keys() == dict(backbone.named_parameters()).keys()


def test_a_missing_buffer_is_named(ibert: Path) -> None:
    change(ibert, lambda state: {n: t for n, t in state.items() if n != SHIFT})
    for read in (load_backbone, lambda folder: check_model(folder, "model.student")):
        with pytest.raises(UserError, match=rf"1 is missing \({SHIFT}\)"):
            read(ibert)


def test_a_buffer_that_is_no_number_is_refused(ibert: Path) -> None:
    change(ibert, lambda state: state | {SHIFT: torch.full_like(state[SHIFT], torch.nan)})
    for read in (load_backbone, lambda folder: check_model(folder, "model.student")):
        with pytest.raises(UserError, match=rf"1 of its tensors have NaN or infinity \({SHIFT}\)"):
            read(ibert)
