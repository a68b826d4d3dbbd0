"""Tiny random encoder-decoders of the kinds that decode each choice as a row of its own."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from small import byte_pairs
from tokenizers import processors
from transformers import CONFIG_MAPPING, AutoModelForSeq2SeqLM, PreTrainedTokenizerFast

from knife.data.example import Example

# What each kind's tokenizer puts around a text.
TEXTS = {
    "bart": "<s> $A </s>",
    "led": "<s> $A </s>",
    "marian": "$A </s>",
    "mbart": "$A </s> <en>",
    "pegasus": "$A </s>",
    "t5gemma": "<s> $A",
    "t5gemma2": "<s> $A",
}
KINDS = list(TEXTS)
SPECIAL = ["<pad>", "<s>", "</s>", "<en>"]
PAD, OPEN, END, LANGUAGE = range(4)
_BART = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
}
_GEMMA = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "intermediate_size": 64,
    "sliding_window": 8,
}
_VISION = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "image_size": 16,
    "patch_size": 8,
}
_SWITCH = {
    "d_model": 32,
    "d_ff": 64,
    "d_kv": 16,
    "num_heads": 2,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_experts": 2,
    "num_sparse_encoder_layers": 1,
    "num_sparse_decoder_layers": 1,
    # As many as there are tokens: an expert refuses none.
    "expert_capacity": 1000,
}


def config_of(kind: str, vocabulary: int, positions: int = 512, **values: Any) -> Any:
    """Return the config of a tiny model that can read and write so many tokens."""
    tokens = {"bos_token_id": OPEN, "eos_token_id": END, "pad_token_id": PAD}
    common: dict[str, Any] = tokens | {"vocab_size": vocabulary, "decoder_start_token_id": END}
    if kind == "switch_transformers":
        common |= _SWITCH | {"decoder_start_token_id": PAD}
    elif kind.startswith("t5gemma"):
        part: dict[str, Any] = (
            tokens | _GEMMA | {"vocab_size": vocabulary, "max_position_embeddings": positions}
        )
        part["layer_types"] = ["sliding_attention", "full_attention"]
        whole = {"text_config": part, "vision_config": _VISION, "mm_tokens_per_image": 4}
        common = {"encoder": whole if kind == "t5gemma2" else part, "decoder": part}
    else:
        common |= _BART | {"max_position_embeddings": positions}
        common |= {"decoder_start_token_id": PAD} if kind in ("marian", "pegasus") else {}
        if kind == "led":
            del common["max_position_embeddings"]
            common |= {"max_encoder_position_embeddings": positions, "attention_window": 8}
            common |= {"max_decoder_position_embeddings": positions}
    return CONFIG_MAPPING[kind](**common | values)


def save_seq2seq(kind: str, folder: Path, examples: Sequence[Example], **values: Any) -> Path:
    """Save a random model whose every number is disturbed, and a tokenizer as its kind has one."""
    tokenizer = byte_pairs(examples, SPECIAL)
    named = [(name, number) for number, name in enumerate(SPECIAL)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=TEXTS[kind], special_tokens=named
    )
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    if TEXTS[kind].startswith("<s>") and TEXTS[kind].endswith("</s>"):
        names["cls_token"] = "<s>"
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, additional_special_tokens=["<en>"], **names
    ).save_pretrained(folder)
    config = config_of(kind, tokenizer.get_vocab_size(), **values)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForSeq2SeqLM.from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
            for name, buffer in model.named_buffers():
                if name == "final_logits_bias":
                    buffer.copy_(torch.randn_like(buffer))
    model.save_pretrained(folder)
    return folder
