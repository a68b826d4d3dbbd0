"""The model families that backbones support, by their transformers configs."""

from typing import Any, Literal

from knife.compat.transformers import model_class_of

Family = Literal["encoder-decoder", "encoder", "decoder"]
# Decoder-only models that can read all choices in one sequence: all they know of places is from
# position ids and the mask. Those with rotary positions, and those with a table of positions.
ROTARY = (
    "arcee",
    "cohere",
    "ernie4_5",
    "gemma",
    "glm",
    "glm4",
    "gpt_neox",
    "granite",
    "helium",
    "llama",
    "mistral",
    "mixtral",
    "nemotron",
    "olmo",
    "olmo2",
    "olmoe",
    "phi",
    "phi3",
    "qwen2",
    "qwen2_moe",
    "qwen3",
    "qwen3_moe",
    "seed_oss",
    "smollm3",
    "stablelm",
    "starcoder2",
)
TABLE = ("gpt2",)


def family(config: Any) -> Family | None:
    """Return the family of a transformers config, or None if no backbone supports it."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    if config.is_encoder_decoder:
        # All choices are decoded in one sequence, so positions must be relative.
        return "encoder-decoder" if hasattr(config, "relative_attention_num_buckets") else None
    if config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        return "encoder"
    return "decoder" if config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES else None


def reads_twice(config: Any) -> bool:
    """Whether a decoder-only model reads a plain text for each choice."""
    return config.model_type not in (*ROTARY, *TABLE)


def model_class(config: Any) -> Any:
    """Return the transformers class of the model that a backbone loads."""
    from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    loaders = {
        "encoder-decoder": AutoModelForSeq2SeqLM,
        "encoder": AutoModel,
        "decoder": AutoModelForCausalLM,
    }
    kind = family(config)
    assert kind
    return model_class_of(loaders[kind], config)
