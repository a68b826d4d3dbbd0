"""The families of models that a backbone can be made of, by their transformers configs."""

from typing import Any, Literal

Family = Literal["encoder-decoder", "encoder", "decoder"]
# Decoder-only models whose positions are rotary, and those that have a table of them.
ROTARY = ("gpt_neox", "llama", "mistral", "olmo2", "phi3", "qwen2", "qwen3", "smollm3")
TABLE = ("gpt2",)


def family(config: Any) -> Family | None:
    """The family of a transformers config; None where no backbone can be made of it."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    if config.is_encoder_decoder:
        # All choices are decoded in one sequence: their positions have to be relative.
        return "encoder-decoder" if hasattr(config, "relative_attention_num_buckets") else None
    if config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        return "encoder"
    return "decoder" if config.model_type in (*ROTARY, *TABLE) else None


def positions(config: Any) -> int | None:
    """How many tokens a model of this config can read; None where positions are relative alone."""
    if config.is_encoder_decoder:
        return None
    # A mask of ours shows layers what their window would hide: texts have to fit into it.
    windows = (
        getattr(config, "max_position_embeddings", None),
        getattr(config, "sliding_window", None),
    )
    return min((window for window in windows if window is not None), default=None)
