"""Low-rank adapters beside whole finetuning: memory and time of a training step.

python bench/lora.py [ROUNDS]   # a Llama of 60 M parameters, rank 8, ZeRO 0; 7 rounds if none
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from transformers import LlamaConfig, LlamaForCausalLM
from workload import random_tokens, time_in_turn

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from measured import measure

import torch  # isort: skip  (after the threads are set)

from knife.config.lora import Lora
from knife.config.run import Training
from knife.config.scale import Scale
from knife.core.words import size
from knife.data.batches import Batch, Rows, collate
from knife.method.objective import Objective
from knife.models.load import load_backbone
from knife.models.lora import adapters_size, add_adapters
from knife.models.quiet import quiet
from knife.models.source import EMBEDDED
from knife.models.tokenizer import load_tokenizer, model_config
from knife.plan.memory import Lengths, training_need
from knife.plan.model_size import model_size
from knife.train.context import PlainContext
from knife.train.engine import start_engine

ROWS, INPUT, CHOICES, CHOICE = 4, 48, 3, 4
LORA = Lora(rank=8)


def save_model(folder: Path) -> None:
    """Save a random Llama with a tokenizer."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32_000,
        hidden_size=512,
        intermediate_size=1_536,
        num_hidden_layers=8,
        num_attention_heads=8,
        bos_token_id=0,
        eos_token_id=1,
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    load_tokenizer(EMBEDDED["tiny-llama"], "model").save_pretrained(folder)
    print(f"# Llama of {model.num_parameters() / 1e6:.1f} M parameters, rank {LORA.rank}")


def engine(folder: Path, lora: Lora | None) -> Any:
    """Return an engine that trains the whole model, or adapters."""
    backbone = load_backbone(folder)
    if lora:
        add_adapters(backbone, lora, 0)
    made = start_engine(Objective(backbone), Training(batch_size=ROWS), Scale(), 1, 1_000)
    made.train()
    return made


def step(made: Any, batch: Batch) -> None:
    """Take a training step."""
    made.backward(made(batch).loss)
    made.step()


def main() -> None:
    """Print both ratios, and those to the formula."""
    quiet()
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    tokens = random_tokens(ROWS, inputs=INPUT, rationale=1, choices=CHOICES, choice=CHOICE)
    batch = collate(tokens, Rows(list(range(ROWS)), [1.0] * ROWS), 0, False)
    with tempfile.TemporaryDirectory() as name, PlainContext() as context:
        folder = Path(name)
        save_model(folder)
        config = model_config(folder, "model")
        known = model_size(config, folder)
        assert known
        ways: dict[str, Lora | None] = {"whole": None, "adapters": LORA}
        peaks = {}
        for way, lora in ways.items():
            found = measure(folder, Scale(), batch, context, lora=lora)
            need = training_need(
                known,
                Training(batch_size=ROWS),
                Scale(),
                Lengths(INPUT, INPUT, CHOICES, CHOICE, 0, 0, 0, 0),
                rationale=False,
                adapters=adapters_size(config, lora) if lora else None,
            )
            peaks[way] = found.peak
            print(f"{way}: peak {size(found.peak)}, {found.peak / need.peak:.2f} of the formula's")
        engines = {way: engine(folder, lora) for way, lora in ways.items()}
        times = time_in_turn(
            {way: partial(step, made, batch) for way, made in engines.items()}, rounds
        )
        for made in engines.values():
            made.destroy()
    print(f"memory, adapters / whole: {peaks['adapters'] / peaks['whole']:.2f}")
    print(f"step time, adapters / whole: {times['adapters'] / times['whole']:.2f}")


if __name__ == "__main__":
    main()
