"""A model's size is read from its config, whatever the config calls its numbers."""

from pathlib import Path
from typing import Any

import pytest
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    BertConfig,
    DistilBertConfig,
    FlaubertConfig,
    FunnelConfig,
    GPT2Config,
    LlamaConfig,
    XLMConfig,
)

from knife.plan.model_size import ModelSize, model_size

SMALL = {"vocab_size": 50, "num_attention_heads": 2}
BERT = SMALL | {"hidden_size": 16, "num_hidden_layers": 3, "intermediate_size": 24}
XLM = {"vocab_size": 50, "emb_dim": 16, "n_layers": 3, "n_heads": 2}


def size_of(auto: Any, config: Any, folder: Path) -> ModelSize:
    """Return the size of a random model, saved in a folder."""
    auto.from_config(config).save_pretrained(folder)
    size = model_size(auto.from_pretrained(folder).config, folder)
    assert size
    return size


@pytest.mark.parametrize(
    ("config", "feed_forward", "inner"),
    [
        (BertConfig(**BERT), 24, 16),
        (DistilBertConfig(vocab_size=50, dim=16, n_layers=3, n_heads=2, hidden_dim=24), 24, 16),
        (XLMConfig(**XLM), 64, 16),
        (FlaubertConfig(**XLM), 64, 16),
        (
            FunnelConfig(
                vocab_size=50,
                d_model=16,
                n_head=2,
                d_head=4,
                d_inner=24,
                block_sizes=[1, 2],
                architectures=["FunnelModel"],
            ),
            24,
            8,
        ),
    ],
)
def test_encoders_name_their_widths_in_several_ways(
    config: Any, feed_forward: int, inner: int, tmp_path: Path
) -> None:
    size = size_of(AutoModel, config, tmp_path)
    assert (size.feed_forward, size.inner) == (feed_forward, inner)
    assert (size.hidden, size.heads, size.layers, size.vocabulary) == (16, 2, 3, 50)
    assert size.dropout


def test_a_config_that_leaves_a_width_out_means_four_times_the_states(tmp_path: Path) -> None:
    config = GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2, n_positions=32)
    assert size_of(AutoModelForCausalLM, config, tmp_path).feed_forward == 64


def test_layers_may_differ(tmp_path: Path) -> None:
    """As in Gemma 4, where reading what differs from the whole model's config is an error."""
    AutoModelForCausalLM.from_config(LlamaConfig(**BERT)).save_pretrained(tmp_path)
    layers = {0: {"head_dim": 32}, 2: {"intermediate_size": 30}}
    config = LlamaConfig(**BERT, head_dim=8, per_layer_config=layers)
    with pytest.raises(RuntimeError, match="per-layer attribute"):
        _ = config.head_dim
    size = model_size(config, tmp_path)
    assert size
    # The mean over three layers: of 32, 8 and 8; of 24, 24 and 30.
    assert (size.inner, size.feed_forward) == (2 * 16, 26)
