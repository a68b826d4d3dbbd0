"""The model families that backbones support, by their transformers configs."""

from typing import Any, Literal

from knife.compat.transformers import model_class_of

Family = Literal["encoder-decoder", "encoder", "decoder"]
# Encoder-decoders that decode all choices in one sequence, as their positions are relative, and
# those that decode each choice as a row of its own.
ONE_SEQUENCE = ("longt5", "mt5", "t5", "umt5")
ROWS = ("bart", "led", "marian", "mbart", "pegasus", "t5gemma", "t5gemma2")
# Those whose tokenizers need not end a text with a special token: answers are closed for them.
UNCLOSED = ("t5gemma", "t5gemma2")
# Why models that look like supported ones are not.
REFUSED = {
    "switch_transformers": "an expert to which a batch sends no token has no gradient there, and "
    "DeepSpeed's stages treat it differently"
}
# Decoder-only models that can read all choices in one sequence: all they know of places is from
# position ids and the mask. Those with rotary positions, and those with a table of positions.
ROTARY = (
    "arcee",
    "cohere",
    "cohere2",
    "ernie4_5",
    "exaone4",
    "gemma",
    "gemma2",
    "gemma3_text",
    "glm",
    "glm4",
    "gpt_neox",
    "gpt_oss",
    "granite",
    "helium",
    "llama",
    "ministral",
    "mistral",
    "mixtral",
    "nemotron",
    "olmo",
    "olmo2",
    "olmo3",
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
        return "encoder-decoder" if config.model_type in (*ONE_SEQUENCE, *ROWS) else None
    if getattr(config, "text_config", None) is not None:
        # A part that reads pictures would be trained without a gradient.
        return None
    if config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        return "encoder"
    return "decoder" if config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES else None


def reads_twice(config: Any) -> bool:
    """Whether a model is a decoder-only one that reads a plain text for each choice."""
    return family(config) == "decoder" and config.model_type not in (*ROTARY, *TABLE)


def way(config: Any) -> str:
    """Return how a model is read, in words."""
    kind = family(config)
    if kind == "encoder":
        return "encoder"
    if kind == "encoder-decoder":
        rows = "a row for each choice" if config.model_type in ROWS else "choices in one sequence"
        return f"encoder-decoder, {rows}"
    return "decoder, two readings" if reads_twice(config) else "decoder, one sequence"


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


def reader_config(config: Any) -> Any:
    """Return the config of the part of a model that reads the task input: of an encoder-decoder,
    the encoder; of a model for text and images, its language model."""
    if not config.is_encoder_decoder:
        return config.get_text_config()
    encoder = getattr(config, "encoder", config)
    return getattr(encoder, "text_config", encoder)


def decoder_config(config: Any) -> Any:
    """Return the config of the decoder of an encoder-decoder."""
    return getattr(config, "decoder", config)
