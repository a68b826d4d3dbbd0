"""What two readings of a text cost, compared with one sequence: a training step of each.

python bench/readings.py [ROUNDS]   # a Llama of 20 M parameters, 3 choices; 9 rounds if none
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from knife.data.batches import Batch, Rows, collate
from knife.data.tokens import Tokens
from knife.method.objective import Objective
from knife.models.decoder_only import DecoderOnly
from knife.models.quiet import quiet
from knife.models.source import EMBEDDED
from knife.models.tokenizer import load_tokenizer
from knife.models.two_readings import TwoReadings

ROWS, INPUT, RATIONALE, CHOICES, CHOICE = 16, 48, 20, 3, 4


def save_model(folder: Path) -> None:
    """Save a random Llama with a tokenizer."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=12_000,
        hidden_size=384,
        intermediate_size=1_024,
        num_hidden_layers=6,
        num_attention_heads=6,
        bos_token_id=0,
        eos_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    load_tokenizer(EMBEDDED["tiny-llama"], "model").save_pretrained(folder)


def batch(*, rationale: bool) -> Batch:
    """Return examples of one length."""
    example = Tokens(
        list(range(2, INPUT + 2)),
        list(range(2, RATIONALE + 2)),
        [list(range(2, CHOICE + 2))] * CHOICES,
        [(0, 1)] * CHOICES,
        0,
    )
    return collate([example] * ROWS, Rows(list(range(ROWS)), [1.0] * ROWS), 0, rationale)


def seconds(objective: Any, of: Batch) -> float:
    """Return the time of a forward and a backward pass."""
    began = time.perf_counter()
    objective(of).loss.backward()
    return time.perf_counter() - began


def main() -> None:
    """Print the ratio of the two ways for a student and a teacher."""
    quiet()
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    with tempfile.TemporaryDirectory() as name:
        save_model(Path(name))
        ways = [Objective(kind(Path(name))).train() for kind in (DecoderOnly, TwoReadings)]
    for what, rationale in (("student", False), ("teacher", True)):
        of = batch(rationale=rationale)
        times = [[seconds(way, of) for way in ways] for _ in range(rounds + 1)][1:]
        one, two = (statistics.median(each) for each in zip(*times, strict=True))
        ratio = statistics.median(twice / once for once, twice in times)
        print(
            f"{what}: one sequence {1e3 * one:.0f} ms, two readings {1e3 * two:.0f} ms: {ratio:.2f}"
        )


if __name__ == "__main__":
    main()
