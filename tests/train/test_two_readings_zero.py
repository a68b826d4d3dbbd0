"""A teacher that reads a rationale and an answer one after the other, in the stages of ZeRO."""

from pathlib import Path

import pytest
from small import EXAMPLES, batch_of, tokens_of
from tiny_families import save_decoder

from knife.config.run import Training
from knife.config.scale import Scale
from knife.method.objective import Objective
from knife.models.load import load_backbone
from knife.train.context import PlainContext
from knife.train.engine import start_engine

STEPS = 4
SETTINGS = Training(epochs=1, learning_rate=1e-3, batch_size=len(EXAMPLES))


def losses(folder: Path, stage: int) -> list[float]:
    """Train with an engine; some batches have no rationale at all."""
    tokens, pad = tokens_of(folder, EXAMPLES)
    objective = Objective(load_backbone(folder))
    with PlainContext():
        engine = start_engine(objective, SETTINGS, Scale(zero_stage=stage), 1, STEPS)
        engine.train()
        found = []
        for step in range(STEPS):
            loss = engine(batch_of(tokens, pad, rationale=step != 2)).loss
            engine.backward(loss)
            engine.step()
            found.append(float(loss))
        engine.destroy()
    return found


@pytest.mark.parametrize("kind", ["lfm2", "qwen3_5_text"])
def test_stages_of_zero_have_the_same_losses(kind: str, tiny_llama: Path, tmp_path: Path) -> None:
    save_decoder(kind, tiny_llama, tmp_path)
    tokens, pad = tokens_of(tmp_path, EXAMPLES)
    objective = Objective(load_backbone(tmp_path)).train()
    first = float(objective(batch_of(tokens, pad, rationale=True)).loss)
    found = [losses(tmp_path, stage) for stage in (0, 1, 2)]
    assert found[0][0] == pytest.approx(first, rel=1e-5)
    assert found[1] == pytest.approx(found[0], rel=1e-4)
    assert found[2] == pytest.approx(found[0], rel=1e-4)
    assert found[0][-1] < found[0][0]
