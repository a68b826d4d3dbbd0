"""A training of realistic size on a GPU, and the same code on a CPU with a tiny model."""

import sys
from pathlib import Path

import pytest
import torch
from transformers import T5Config

from knife.config.scale import Scale

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))
from gpu import T5_BASE, speed


def test_speed_is_measured_on_what_there_is() -> None:
    tiny = T5Config(
        vocab_size=500, d_model=64, d_ff=128, d_kv=16, num_heads=4, num_layers=2,
        decoder_start_token_id=0,
    )  # fmt: skip
    found = speed(tiny, Scale(launcher="process"), 4, 32, 3)
    assert found.examples_per_second > 0
    assert 0 < found.utilisation < 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU; there is none here")
def test_a_t5_base_trains_in_bf16() -> None:
    found = speed(T5_BASE, Scale(precision="bf16", launcher="process"), 16, 256, 10)
    print(found)
    assert found.examples_per_second > 10
    assert 0.5 * found.estimate < found.peak < 1.2 * found.estimate
    assert 0.01 < found.utilisation < 1
