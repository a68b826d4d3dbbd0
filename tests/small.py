"""Small examples, tokens and models for tests."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import torch
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertModel,
    GPT2Config,
    LlamaConfig,
    PreTrainedTokenizerFast,
)

from knife.config.run import World
from knife.data.batches import Batch, Rows, collate
from knife.data.creatures import creatures
from knife.data.example import Example
from knife.data.examples import Examples
from knife.data.token_table import TokenTable
from knife.data.tokenizing import Mark, tokenize
from knife.data.tokens import Tokens, task_input_text
from knife.models.tokenizer import load_tokenizer
from knife.store.store import Store

HOMES = ("forest", "desert", "swamp", "mountain")


def _examples() -> list[Example]:
    """Make examples with two to four choices of one or more tokens, with and without rationale."""
    world = creatures(World(creatures=64, train=24, dev=1, test=1, which=0.4))
    some = [replace(e, rationale=None) if i % 5 == 4 else e for i, e in enumerate(world.train)]
    long = "you find it in the swamp . the home of a drapif is the swamp . it is green ."
    some.append(Example("home-of", "which one is the home of a drapif ?", HOMES, 2, long))
    some.append(Example("food-of", "which food ?", ("fish", "blue fruit", "the honey"), 1, "fruit"))
    return some


EXAMPLES = _examples()


def save_tiny_bert(
    folder: Path, examples: Sequence[Example], *, width: int = 32, dropout: float = 0.1
) -> None:
    """Save a random BERT of two layers, and a WordPiece tokenizer of the examples' words."""
    texts = [f"{task_input_text(e)[0]} explanation: {e.rationale}".lower() for e in examples]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = sorted(set("".join(texts)) - {" "})
    # Every second word is one token, the others are split into letters.
    words = sorted({word for text in texts for word in text.split() if word.isalpha()})[::2]
    pieces = dict.fromkeys([*special, *letters, *(f"##{x}" for x in letters), *words])
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=ends
    )
    names = {f"{name[1:-1].lower()}_token": name for name in special}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=256,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        # Large enough weights that differences in the states affect the scores.
        initializer_range=0.2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertModel(config).save_pretrained(folder)


def save_tiny_llama(folder: Path, examples: Sequence[Example]) -> None:
    """Save a random Llama of two layers, with two key heads for four query heads; texts begin with
    `<s>`."""
    tokenizer = byte_pairs(examples, ["<s>", "</s>"])
    opening = ("<s>", tokenizer.token_to_id("<s>"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[opening]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.2,
    )
    _save_decoder(config, folder)


def save_tiny_gpt2(folder: Path, examples: Sequence[Example], *, dropout: float = 0.1) -> None:
    """Save a random GPT-2 of two layers; like the real one, its tokenizer adds no opening token."""
    tokenizer = byte_pairs(examples, ["<|endoftext|>"])
    end = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **end).save_pretrained(folder)
    config = GPT2Config(
        vocab_size=tokenizer.get_vocab_size(),
        n_embd=32,
        n_layer=2,
        n_head=2,
        n_positions=512,
        resid_pdrop=dropout,
        embd_pdrop=dropout,
        attn_pdrop=dropout,
        initializer_range=0.2,
        bos_token_id=0,
        eos_token_id=0,
    )
    _save_decoder(config, folder)


def _save_decoder(config: Any, folder: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)


def byte_pairs(examples: Sequence[Example], special: list[str]) -> Tokenizer:
    """Return a byte-level tokenizer with some of the examples' words as tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = (f"{task_input_text(e)[0]} explanation: {e.rationale}" for e in examples)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def tokens_of(
    folder: Path, examples: Sequence[Example], max_tokens: int = 256
) -> tuple[TokenTable, int]:
    """Return examples tokenized by the folder's tokenizer, and a padding token."""
    tokenizer: Any = load_tokenizer(folder, "model")
    marks = get_args(Mark)
    return tokenize(examples, tokenizer, max_tokens, marks=marks)[0], tokenizer.pad_token_id or 0


def publish_examples(store: Store, folder: Path, examples: Sequence[Example]) -> None:
    """Publish all examples as each split of the data `d`, and as a model's tokens `k`."""
    tokens, _ = tokens_of(folder, examples)
    for kind, key, table in (("data", "d", Examples.of(examples)), ("tokens", "k", tokens)):
        for name in ("train", "dev", "test"):
            table.write(store.work(kind, key) / f"{name}.arrow")
        store.publish(kind, key, {})


def batch_of(
    tokens: Sequence[Tokens], pad_id: int, *, rationale: bool, rows: Sequence[int] | None = None
) -> Batch:
    """Return a batch of all tokens, or of some rows, with equal weights."""
    rows = range(len(tokens)) if rows is None else rows
    return collate(tokens, Rows(list(rows), [1.0] * len(rows)), pad_id, rationale)


def with_compatible_letters(model: Path, folder: Path) -> Path:
    """Copy a model, with a tokenizer that normalises compatible letters (NFKC): `CO2` and `CO₂`
    are the same tokens, and so are full-width and normal letters."""
    shutil.copytree(model, folder)
    whole = Tokenizer.from_file(str(folder / "tokenizer.json"))
    steps = [normalizers.NFKC(), *([whole.normalizer] if whole.normalizer else [])]
    whole.normalizer = normalizers.Sequence(steps)
    whole.save(str(folder / "tokenizer.json"))
    return folder


def wide(word: str) -> str:
    """Return a word in full-width letters, which NFKC maps to normal ones."""
    return "".join(chr(ord(letter) + 0xFEE0) for letter in word)
