"""Every way of reading a model, in the stages of ZeRO and in bf16, with batches that rest a part:
those without rationales."""

from pathlib import Path

import pytest
import torch
from small import EXAMPLES, batch_of, tokens_of
from small_seq2seq import save_seq2seq
from tiny_families import encoder_config, save, save_decoder
from torch import nn

from knife.config.run import Training
from knife.config.scale import Scale
from knife.method.objective import Objective
from knife.models.load import load_backbone
from knife.models.tokenizer import load_tokenizer
from knife.train.context import PlainContext
from knife.train.engine import start_engine

STEPS = 4
SETTINGS = Training(epochs=1, learning_rate=1e-3, batch_size=len(EXAMPLES))
TWO_READINGS = ["lfm2", "qwen3_5_text"]
KINDS = ["bart", "t5gemma2", "modernbert", "gemma3_text", *TWO_READINGS]


@pytest.fixture(params=KINDS)
def model(
    request: pytest.FixtureRequest, tiny_llama: Path, tiny_bert: Path, tmp_path: Path
) -> tuple[str, Path]:
    """Return the kind of a tiny model, and its folder."""
    kind: str = request.param
    if kind in ("bart", "t5gemma2"):
        return kind, save_seq2seq(kind, tmp_path / kind, EXAMPLES)
    if kind == "modernbert":
        tokenizer = load_tokenizer(tiny_bert, "model")
        save(encoder_config(kind, len(tokenizer) + 8), tokenizer, tmp_path / kind)
    else:
        save_decoder(kind, tiny_llama, tmp_path / kind)
    return kind, tmp_path / kind


def objective_of(folder: Path) -> Objective:
    """Return a model without dropout, which the stages would draw in their own ways."""
    objective = Objective(load_backbone(folder)).train()
    for module in objective.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("dropout", "attention_dropout", "activation_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    return objective


def losses(folder: Path, stage: int, precision: str = "fp32") -> list[float]:
    """Train with an engine; some batches have no rationale at all."""
    tokens, pad = tokens_of(folder, EXAMPLES)
    objective = objective_of(folder)
    scale = Scale.model_validate({"zero_stage": stage, "precision": precision})
    with PlainContext():
        engine = start_engine(objective, SETTINGS, scale, 1, STEPS)
        found = []
        for step in range(STEPS):
            loss = engine(batch_of(tokens, pad, rationale=step != 2)).loss
            engine.backward(loss)
            engine.step()
            found.append(float(loss.detach()))
        engine.destroy()
    return found


def test_stages_of_zero_have_the_same_losses(model: tuple[str, Path]) -> None:
    kind, folder = model
    tokens, pad = tokens_of(folder, EXAMPLES)
    with torch.no_grad():
        first = float(objective_of(folder)(batch_of(tokens, pad, rationale=True)).loss)
    # Two readings are refused at stage 3.
    found = [losses(folder, stage) for stage in range(3 if kind in TWO_READINGS else 4)]
    assert found[0][0] == pytest.approx(first, rel=1e-5)
    for other in found[1:]:
        assert other == pytest.approx(found[0], rel=1e-4)
    assert found[0][-1] < found[0][0]


def test_bf16_is_near(model: tuple[str, Path]) -> None:
    _, folder = model
    exact = losses(folder, 0)
    for stage in (0, 2):
        assert losses(folder, stage, "bf16") == pytest.approx(exact, rel=0.1, abs=0.05)
