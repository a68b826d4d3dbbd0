"""Tiny random models of many families, each with the tokenizer of a tiny Llama or BERT."""

from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_MAPPING

from knife.models.families import model_class
from knife.models.tokenizer import load_tokenizer

_WINDOW = {"sliding_window": 16, "num_hidden_layers": 4}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
_SHARED = {"shared_expert_intermediate_size": 32}
_LINEAR = {
    "num_hidden_layers": 4,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
_LATENT = {
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "topk_group": 1,
    "moe_intermediate_size": 32,
    "first_k_dense_replace": 1,
}
_OLD = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512}
_MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8}
# What decoder-only families need besides `_COMMON`; None takes a number out of it.
DECODERS: dict[str, dict[str, Any]] = {
    "apertus": {},
    "arcee": {},
    "biogpt": {},
    "bloom": {},
    "codegen": {**_OLD, "rotary_dim": 4, "n_ctx": 512},
    "cohere": {},
    "cohere2": _WINDOW,
    "ctrl": {**_OLD, "dff": 64},
    "deepseek_v3": {
        **_LATENT,
        "n_group": 2,
        "q_lora_rank": 16,
        "kv_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 8,
        "num_key_value_heads": 4,
    },
    "ernie4_5": {},
    "exaone4": _WINDOW,
    "falcon": {"head_dim": None, "num_kv_heads": 4},
    "falcon_mamba": {"state_size": 8},
    "gemma": {},
    "gemma2": {"sliding_window": 16, "query_pre_attn_scalar": 8},
    "gemma3_text": {"num_hidden_layers": 6, "sliding_window": 16},
    "gemma3n_text": {
        "num_hidden_layers": 4,
        "num_kv_shared_layers": 1,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "sliding_window": 16,
        "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": 1024,
        "laurel_rank": 4,
        "activation_sparsity_pattern": [0.0] * 4,
    },
    "gemma4_text": {
        "num_hidden_layers": 6,
        "sliding_window": 16,
        "hidden_size_per_layer_input": 8,
        "num_kv_shared_layers": 0,
        "global_head_dim": 8,
    },
    "glm": {},
    "glm4": {},
    "glm4_moe": {**_LATENT, "n_group": 1, "n_shared_experts": 1},
    "gpt2": _OLD,
    "gpt_bigcode": _OLD,
    "gpt_neo": {
        "num_layers": 2,
        "num_heads": 4,
        "num_attention_heads": None,
        "num_hidden_layers": None,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 16,
    },
    "gpt_neox": {},
    "gpt_oss": {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 16},
    "gptj": {**_OLD, "rotary_dim": 4},
    "granite": {"logits_scaling": 4.0, "residual_multiplier": 0.5},
    "granitemoehybrid": {
        **_MAMBA,
        "layer_types": ["mamba", "attention"],
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "shared_intermediate_size": 32,
    },
    "helium": {},
    "hunyuan_v1_dense": {},
    "jamba": {
        "num_experts": 2,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "mamba_dt_rank": 8,
        "use_mamba_kernels": False,
    },
    "lfm2": {"num_hidden_layers": 4, "layer_types": ["conv", "full_attention"] * 2},
    "llama": {},
    "llama4_text": {
        "num_hidden_layers": 4,
        "num_local_experts": 4,
        "intermediate_size_mlp": 64,
        "attention_chunk_size": 16,
    },
    "mamba": {"state_size": 8},
    "mamba2": {"num_heads": 8, "head_dim": 8, "state_size": 8, "n_groups": 1},
    "ministral": {
        "sliding_window": 16,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "ministral3": {},
    "mistral": {},
    "mixtral": {"num_local_experts": 4},
    "mpt": {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 512, "expansion_ratio": 2},
    "nemotron": {},
    "olmo": {},
    "olmo2": {},
    "olmo3": _WINDOW,
    "olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "persimmon": {},
    "phi": {},
    "phi3": {},
    "qwen2": {},
    "qwen2_moe": {**_EXPERTS, **_SHARED},
    "qwen3": {},
    "qwen3_5_text": _LINEAR,
    "qwen3_moe": _EXPERTS,
    "qwen3_next": {**_LINEAR, **_EXPERTS, **_SHARED},
    "recurrent_gemma": {
        "num_hidden_layers": 3,
        "lru_width": 32,
        "attention_window_size": 16,
        "block_types": ["recurrent", "recurrent", "attention"],
    },
    "rwkv": {"attention_hidden_size": 32, "context_length": 512},
    "seed_oss": {},
    "smollm3": {},
    "stablelm": {},
    "starcoder2": {},
    "xglm": {"d_model": 32, "num_layers": 2, "attention_heads": 4, "ffn_dim": 64},
}
# Encoder-decoders with relative positions.
RELATIVE = ("longt5", "mt5", "t5", "umt5")
# What encoders need besides `_COMMON`.
ENCODERS: dict[str, dict[str, Any]] = {
    "albert": {},
    "bert": {},
    "big_bird": {"block_size": 4, "num_random_blocks": 1},
    "camembert": {},
    "convbert": {},
    "data2vec-text": {},
    "deberta": {},
    "deberta-v2": {},
    "distilbert": {},
    "electra": {},
    "ernie": {},
    "esm": {"mask_token_id": 4},
    "eurobert": {},
    "flaubert": {},
    "fnet": {},
    "funnel": {"d_model": 32, "n_head": 4, "d_head": 8, "d_inner": 64, "block_sizes": [2, 2]},
    "ibert": {},
    "layoutlm": {},
    "longformer": {"attention_window": 16},
    "luke": {"entity_vocab_size": 8, "entity_emb_size": 16},
    "megatron-bert": {},
    "mobilebert": {
        "hidden_size": 128,
        "embedding_size": 32,
        "intra_bottleneck_size": 32,
        "true_hidden_size": 32,
    },
    "modernbert": {},
    "mpnet": {},
    "mra": {},
    "nomic_bert": {},
    "nystromformer": {},
    "rembert": {},
    "roberta": {},
    "roberta-prelayernorm": {},
    "roformer": {},
    "squeezebert": {"embedding_size": 32},
    "xlm": {},
    "xlm-roberta": {},
    "xlm-roberta-xl": {},
    "yoso": {},
}
_COMMON = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
}
# With larger weights, what a token reads shows more.
_IDS = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None, "initializer_range": 0.2}
# Older configs have names of their own for all of these.
_OWN_NAMES = ("n_embd", "d_model")


def decoder_config(kind: str, vocabulary: int, **more: Any) -> Any:
    """Return the config of a tiny decoder-only model, with some numbers of its own."""
    own = DECODERS[kind] | more
    common = {} if any(name in own for name in _OWN_NAMES) else _COMMON
    values = {**common, "vocab_size": vocabulary, **own}
    given = {name: value for name, value in values.items() if value is not None}
    return CONFIG_MAPPING[kind](**given, **_IDS)


def t5_config(kind: str, vocabulary: int) -> Any:
    """Return the config of a tiny encoder-decoder of the T5 family."""
    sizes = {"d_model": 32, "d_ff": 64, "d_kv": 8, "num_heads": 4, "num_layers": 2}
    ids = {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1}
    return CONFIG_MAPPING[kind](vocab_size=vocabulary, **sizes, **ids)


def encoder_config(kind: str, vocabulary: int) -> Any:
    """Return the config of a tiny encoder."""
    own = ENCODERS[kind]
    left_out = ("head_dim", *([] if kind == "eurobert" else ["num_key_value_heads"]))
    common = {n: v for n, v in _COMMON.items() if n not in left_out}
    given = {"vocab_size": vocabulary, **({} if "d_model" in own else common), **own}
    return CONFIG_MAPPING[kind](**given, pad_token_id=0)


def save_decoder(kind: str, tokenizer_of: Path, folder: Path) -> None:
    """Save a tiny decoder-only model, every parameter of which is moved by a random number."""
    tokenizer = load_tokenizer(tokenizer_of, "model")
    # Qwen2's own tokenizer adds a token.
    save(decoder_config(kind, len(tokenizer) + 8), tokenizer, folder)


def save(config: Any, tokenizer: Any, folder: Path) -> None:
    """Save a random model of a config with a tokenizer."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = model_class(config)(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
