"""Shared by the benchmarks: random models, random examples, and alternating timing."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import random
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from tokenizers import processors
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.utils import logging as transformers_logging

from knife.data.tokens import Tokens
from knife.models.source import EMBEDDED

transformers_logging.disable_progress_bar()

SIZES = {
    "20M": {"d_model": 256, "d_ff": 1024, "num_layers": 6, "num_heads": 8, "d_kv": 32},
    "60M": {"d_model": 512, "d_ff": 2048, "num_layers": 6, "num_heads": 8, "d_kv": 64},
}


def model_folder(size: str, parent: Path) -> Path:
    """Make a T5 of that size with random weights, or return the tiny one of the package."""
    if size == "tiny":
        return EMBEDDED["tiny-t5"]
    torch.manual_seed(0)
    config = T5Config(vocab_size=32128, dropout_rate=0.0, decoder_start_token_id=0, **SIZES[size])
    model = T5ForConditionalGeneration(config)
    folder = parent / size
    model.save_pretrained(folder)
    count = sum(p.numel() for p in model.parameters()) / 1e6
    print(f"# {size}: {count:.1f} M parameters")
    return folder


def llama_folder(size: str, parent: Path) -> Path:
    """Make a Llama as wide and deep as the T5's encoder of that size, with random weights.

    Its tokenizer is the tiny T5's, without the token that ends texts.
    """
    torch.manual_seed(0)
    like = SIZES[size]
    config = LlamaConfig(
        vocab_size=32128,
        hidden_size=like["d_model"],
        intermediate_size=like["d_ff"],
        num_hidden_layers=like["num_layers"],
        num_attention_heads=like["num_heads"],
        num_key_value_heads=like["num_heads"] // 2,
        bos_token_id=None,
        eos_token_id=1,
    )
    model = LlamaForCausalLM(config)
    folder = parent / f"llama-{size}"
    model.save_pretrained(folder)
    words = AutoTokenizer.from_pretrained(EMBEDDED["tiny-t5"]).backend_tokenizer
    words.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>").save_pretrained(folder)
    count = sum(p.numel() for p in model.parameters()) / 1e6
    print(f"# Llama {size}: {count:.1f} M parameters")
    return folder


def random_tokens(
    count: int, *, inputs: int, rationale: int, choices: int, choice: int, vocabulary: int = 130
) -> list[Tokens]:
    """Return examples of random tokens, all of the same length."""
    generator = random.Random(0)

    def ids(length: int) -> list[int]:
        return [generator.randrange(3, vocabulary) for _ in range(length - 1)] + [1]

    return [
        Tokens(
            input_ids=ids(inputs),
            rationale_ids=ids(rationale),
            choice_ids=[ids(choice) for _ in range(choices)],
            choice_spans=[(0, 1)] * choices,
            answer=generator.randrange(choices),
        )
        for _ in range(count)
    ]


def time_in_turn(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the median seconds of each function; they alternate in every round, so that drift in
    the machine's speed affects all equally."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            if number:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}
