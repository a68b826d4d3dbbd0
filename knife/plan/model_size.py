"""A model's size, from its transformers config and the headers of its weight files."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from knife.models.families import ROTARY, ROWS, Family, family, reader_config, reads_twice
from knife.models.text_part import text_name, whole_kind

_FLOATS = {"F64", "F32", "F16", "BF16"}
# What configs call the widths inside the feed-forward layer and of one attention head.
_FEED_FORWARD = ("intermediate_size", "d_ff", "encoder_ffn_dim", "hidden_dim", "d_inner", "n_inner")
_HEAD_WIDTH = ("head_dim", "d_kv", "d_head")
_DECODER_LAYERS = ("num_decoder_layers", "decoder_layers")
_DROPOUTS = ("dropout_rate", "dropout", "hidden_dropout_prob", "hidden_dropout", "resid_pdrop")


@dataclass(frozen=True)
class ModelSize:
    """A model's size, as far as its files state it.

    Attributes:
        parameters: their number.
        hidden, inner, feed_forward: widths of states, of all attention heads together, and inside
            the feed-forward layer.
        layers, decoder_layers: depths; the latter is for encoder-decoders only.
        family: which kind of backbone it is.
        repeats: whether it reads the task input, or the encoder's states of it, for each choice.
        heads, vocabulary: numbers of attention heads and of tokens.
        gated: whether the feed-forward layer has a gate, as in T5 1.1 and Llama.
        dropout: whether there is any; its masks are kept for the backward pass.
    """

    parameters: int
    hidden: int
    inner: int
    feed_forward: int
    layers: int
    decoder_layers: int
    family: Family
    repeats: bool
    heads: int
    vocabulary: int
    gated: bool
    dropout: bool


def model_size(config: Any, folder: Path) -> ModelSize | None:
    """Return a model's size from its transformers config and the headers of its safetensors.

    No weights are read. Returns None if config or files do not state it.
    """
    kind = family(config)
    both = kind == "encoder-decoder"
    text = reader_config(config)
    sizes = _tensor_sizes(folder, encoder=kind == "encoder")
    hidden, heads = _number(text, ["hidden_size"]), _number(text, ["num_attention_heads"])
    layers, vocabulary = _number(text, ["num_hidden_layers"]), _number(text, ["vocab_size"])
    if not sizes or kind is None or not (hidden and heads and layers and vocabulary):
        return None
    if kind == "encoder":
        # The answer head, which a pretrained encoder lacks.
        sizes["score.weight"] = hidden
        sizes["head.0.weight"] = 3 * hidden**2
    width = _number(text, _HEAD_WIDTH)
    decoder_layers = _number(config, _DECODER_LAYERS) if both else 0
    gated = config.model_type in ROTARY or any(".gate_" in name for name in sizes)
    return ModelSize(
        parameters=sum(sizes.values()),
        hidden=hidden,
        inner=heads * width if width else hidden,
        # Four times the states is the usual width, which GPT-2's and XLM's configs leave out.
        feed_forward=_number(text, _FEED_FORWARD) or 4 * hidden,
        layers=layers,
        decoder_layers=layers if decoder_layers is None else decoder_layers,
        family=kind,
        repeats=config.model_type in ROWS or reads_twice(config),
        heads=heads,
        vocabulary=vocabulary,
        gated=bool(_attribute(text, "is_gated_act", gated)),
        dropout=any(_attribute(text, name, 0) for name in _DROPOUTS),
    )


def _number(config: Any, names: Sequence[str]) -> int | None:
    """Return the first of the named attributes that is a number; the mean over layers, rounded up,
    where they differ."""
    for name in names:
        if isinstance(value := _attribute(config, name, None), int):
            return value
        each = value if isinstance(value, list) else _by_layer(config, name)
        if each and all(isinstance(one, int) for one in each):
            return -(-sum(each) // len(each))
    return None


def _by_layer(config: Any, name: str) -> list[Any]:
    """Return an attribute of each layer of a config whose layers differ, as in Gemma 4."""
    if not getattr(config, "is_heterogeneous", False):
        return []
    return [_attribute(layer, name, None) for layer in config.per_layer_config]


def _attribute(config: Any, name: str, default: Any) -> Any:
    """Return an attribute, or the default if there is none or reading it is an error, as it is for
    what differs by layer."""
    try:
        return getattr(config, name, default)
    except Exception:
        # A config's own code may raise anything.
        return default


def _tensor_sizes(folder: Path, *, encoder: bool) -> dict[str, int]:
    """Return the number of elements of every weight in a model's safetensors files, by name."""
    sizes: dict[str, int] = {}
    whole = whole_kind(folder)
    try:
        for path in folder.glob("*.safetensors"):
            with path.open("rb") as file:
                header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
            for found, tensor in header.items():
                name = text_name(found) if whole else found
                # Pretraining heads of encoders are not loaded.
                if name is None or name == "__metadata__":
                    continue
                head = encoder and name.startswith(("cls.", "lm_head."))
                if tensor["dtype"] in _FLOATS and not head:
                    sizes[name] = prod(tensor["shape"])
    except (OSError, ValueError, KeyError, TypeError, MemoryError, OverflowError):
        return {}
    return sizes
