"""Speed, memory and model FLOPs utilisation of a training, through our own engine.

python bench/gpu.py        # a random T5 of the size of t5-base in bf16; needs a GPU

Model FLOPs of a step: 6 for each weight and each token that it sees (Kaplan et al. 2020, arXiv
2001.08361, section 2.1): weights of the encoder see task inputs, all others answers alone. That is
a lower bound: attention scores, and the decoder's projections of the encoder's states, are left
out. Utilisation (Chowdhery et al. 2022, arXiv 2204.02311, appendix B) is relative to what a large
matrix product reaches on this device, not to its data sheet.
"""

import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import T5Config, T5ForConditionalGeneration

from knife.config.run import Training
from knife.config.scale import Scale
from knife.data.batches import Rows, collate
from knife.data.tokens import Tokens
from knife.method.objective import Objective
from knife.models.load import load_backbone
from knife.models.tokenizer import model_config
from knife.plan.memory import Lengths, training_need
from knife.plan.model_size import model_size
from knife.train.context import PlainContext
from knife.train.engine import start_engine
from knife.train.scaled import scaled

CHOICES, CHOICE = 4, 4
T5_BASE = T5Config(
    d_model=768, d_ff=3072, d_kv=64, num_heads=12, num_layers=12, decoder_start_token_id=0
)


@dataclass(frozen=True)
class Speed:
    """The measurements; `peak` (bytes) is known only on a GPU, `estimate` is `knife`'s."""

    examples_per_second: float
    peak: int
    estimate: int
    utilisation: float


def speed(config: T5Config, scale: Scale, rows: int, length: int, steps: int) -> Speed:
    """Train a random T5 for some steps on random examples, after three to warm up."""
    with tempfile.TemporaryDirectory() as folder, PlainContext() as context:
        path = Path(folder)
        T5ForConditionalGeneration(config).save_pretrained(path)
        size = model_size(model_config(path, "model"), path)
        backbone = scaled(load_backbone(path), scale).to(context.device)
        assert size
        ids = [*torch.randint(3, config.vocab_size, (length - 1,)).tolist(), 1]
        tokens = [Tokens(ids, [], [[5, 6, 7, 1]] * CHOICES, [(0, 1)] * CHOICES, 0)]
        batch = collate(tokens * rows, Rows(list(range(rows)), [1.0] * rows), 0, False)
        batch = batch.to(context.device)
        training = Training(batch_size=rows)
        engine = start_engine(Objective(backbone), training, scale, 1, steps + 3)
        engine.train()
        gpu = context.device.type == "cuda"
        start = 0.0
        for step in range(steps + 3):
            if step == 3:
                start = _now(gpu)
                if gpu:
                    torch.cuda.reset_peak_memory_stats()
            engine.backward(engine(batch, None).loss)
            engine.step()
        seconds = (_now(gpu) - start) / steps
        peak = torch.cuda.max_memory_allocated() if gpu else 0
        sizes = {n: p.numel() for n, p in backbone.named_parameters() if "shared" not in n}
        reads = sum(size for name, size in sizes.items() if ".encoder." in name)
        answers = sum(sizes.values()) - reads + config.d_model * config.vocab_size
        flops = 6 * rows * (reads * length + answers * CHOICES * CHOICE)
        engine.destroy()
        lengths = Lengths(length, length, CHOICES, CHOICE, 0, 0, 0, 0)
        need = training_need(size, training, scale, lengths, rationale=False, gpu=gpu)
        reached = flops / seconds / _product_rate(context.device, scale)
        return Speed(rows / seconds, peak, need.peak, reached)


def _product_rate(device: torch.device, scale: Scale) -> float:
    """Return the FLOPs per second of a large matrix product."""
    gpu = device.type == "cuda"
    side, times = (8192, 20) if gpu else (512, 20)
    kind = torch.bfloat16 if scale.precision == "bf16" else torch.float32
    left = torch.randn(side, side, device=device, dtype=kind)
    left @ left
    start = _now(gpu)
    for _ in range(times):
        left @ left
    return 2 * side**3 * times / (_now(gpu) - start)


def _now(gpu: bool) -> float:
    if gpu:
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    if not torch.cuda.is_available():
        sys.exit("no GPU found")
    found = speed(T5_BASE, Scale(precision="bf16", launcher="process"), 32, 256, 20)
    print(json.dumps({"gpu": torch.cuda.get_device_name(), **asdict(found)}, indent=1))
