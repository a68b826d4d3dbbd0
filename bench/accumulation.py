"""Summing a batch's gradients in fp32, in bf16 training: step time relative to sums in bf16.

python bench/accumulation.py [20M] [tiny]
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from workload import model_folder, random_tokens

import torch  # isort: skip  (after the threads are set)

from knife.compat.deepspeed import undo_hidden_step
from knife.config.run import Training
from knife.config.scale import Scale
from knife.data.batches import Rows, collate
from knife.method.objective import Objective
from knife.models.load import load_backbone
from knife.train import engine
from knife.train.context import PlainContext

ROWS, PARTS = 4, 4


@contextmanager
def bf16_sums() -> Iterator[None]:
    """Make engines sum in DeepSpeed's default type, which is that of the weights."""
    config = engine.engine_config

    def own(*settings: Any) -> dict[str, Any]:
        return config(*settings) | {"data_types": {"grad_accum_dtype": None}}

    def plain(made: Any, **_: bool) -> None:
        undo_hidden_step(made, fp32_gradients=False)

    with patch.multiple(engine, engine_config=own, undo_hidden_step=plain):
        yield


def started(folder: Path, stage: int) -> Any:
    training = Training(batch_size=ROWS * PARTS, accumulate=PARTS, learning_rate=1e-4)
    scale = Scale.model_validate({"precision": "bf16", "zero_stage": stage})
    made = engine.start_engine(Objective(load_backbone(folder)), training, scale, 1, 1000)
    made.train()
    return made


def step(made: Any, batch: Any) -> float:
    """Return the processor time of one step with all parts."""
    begun = time.process_time()
    for _ in range(PARTS):
        made.backward(made(batch).loss)
        made.step()
    return time.process_time() - begun


def main() -> None:
    tokens = random_tokens(ROWS, inputs=64, rationale=1, choices=2, choice=3)
    batch = collate(tokens, Rows(list(range(ROWS)), [1.0] * ROWS), 0, False)
    with tempfile.TemporaryDirectory() as name, PlainContext() as context:
        context.device = torch.device("cpu")
        for size in sys.argv[1:] or ["tiny", "20M"]:
            folder = model_folder(size, Path(name))
            for stage in range(4):
                ours = started(folder, stage)
                with bf16_sums():
                    theirs = started(folder, stage)
                pairs = [(step(ours, batch), step(theirs, batch)) for _ in range(12)][2:]
                ratio = statistics.median(one / two for one, two in pairs)
                print(
                    f"{size:5} ZeRO {stage}: {ratio:.3f} x the step of sums in bf16, "
                    f"{1000 * statistics.median(one for one, _ in pairs):.0f} ms",
                    flush=True,
                )
                ours.destroy()
                theirs.destroy()


if __name__ == "__main__":
    main()
