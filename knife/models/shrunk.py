"""A small random model of the kind that a config describes, for tests of the kind."""

from collections.abc import Callable
from typing import Any

import torch

from knife.models.families import model_class
from knife.models.weights import bare_model

# Models of no more parameters, embeddings aside, keep their size.
_SMALL = 2_000_000
# A model whose widths cannot be reduced is tested as it is up to this size.
_LARGEST = 400_000_000
_DEPTHS = (
    "num_hidden_layers",
    "num_layers",
    "n_layer",
    "n_layers",
    "num_decoder_layers",
    "encoder_layers",
    "decoder_layers",
)
# Each is reduced to one of these numbers if it is larger.
_WIDTHS = {
    "num_attention_heads": 4,
    "n_head": 4,
    "n_heads": 4,
    "num_heads": 4,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "intermediate_size": 64,
    "intermediate_size_mlp": 64,
    "moe_intermediate_size": 64,
    "shared_expert_intermediate_size": 64,
    "shared_intermediate_size": 64,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "ffn_dim": 64,
    "ffn_hidden_size": 64,
    "d_ff": 64,
    "d_inner": 64,
    "hidden_dim": 64,
    "n_inner": 64,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
}
_HIDDEN = ("hidden_size", "d_model", "n_embd", "dim")
_OWN_HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads")
_KEY_HEADS = ("num_key_value_heads", "num_kv_heads")
# Ends of the names of numbers after which the types of layers repeat.
_PERIODS = ("_period", "_interval", "_pattern", "_step")
# How far every parameter is moved: many begin as 0 or 1, which would hide what they are for.
_MOVED = 0.05


def shrunk_model(config: Any, seed: int = 0) -> Any:
    """Return a transformers model with random weights, with a few layers of each type, and narrow
    if its config allows that; vocabulary, positions and widths of attention heads stay.

    Raises:
        ValueError: no model can be built, or it cannot read a text.
    """
    size = sum(parameter.numel() for parameter in bare_model(config).parameters())
    changes: tuple[Callable[[dict[str, Any]], dict[str, Any]], ...] = (_narrow, _shallow, dict)
    if size - _embeddings(config) <= _SMALL:
        changes = (dict,)
    elif size > _LARGEST:
        changes = (_narrow, _shallow)
    reasons = []
    with torch.random.fork_rng(devices=[]):
        for change in changes:
            torch.manual_seed(seed)
            try:
                small = type(config).from_dict(change(config.to_dict()))
                model = model_class(small)(small).eval()
                _move(model)
                _read(model)
            except Exception as error:
                # A model's own code may raise anything for numbers that do not fit together.
                reasons.append((str(error).strip() or type(error).__name__).splitlines()[0])
            else:
                return model
    raise ValueError(reasons[-1])


def _embeddings(config: Any) -> int:
    width = getattr(config, "hidden_size", None) or 0
    return 2 * int(config.get_text_config().vocab_size) * int(width)


def _shallow(values: dict[str, Any]) -> dict[str, Any]:
    """Return a config's values with as few layers as have all types."""
    depth = next((values[name] for name in _DEPTHS if isinstance(values.get(name), int)), 0)
    kinds = values.get("layer_types") or values.get("layers_block_type") or []
    few = max(
        2,
        *(kinds.index(kind) + 1 for kind in set(kinds)),
        *(
            value
            for name, value in values.items()
            if name.endswith(_PERIODS) and isinstance(value, int)
        ),
        0,
    )
    changed = {}
    for name, value in values.items():
        if name in _DEPTHS and isinstance(value, int):
            changed[name] = min(value, few)
        elif isinstance(value, list) and len(value) == depth:
            changed[name] = value[:few]
        elif isinstance(value, dict) and any(depth in value for depth in _DEPTHS):
            changed[name] = _shallow(value)
        else:
            changed[name] = value
    return changed


def _narrow(values: dict[str, Any]) -> dict[str, Any]:
    """Return a config's values with few layers, heads and experts, and narrow ones."""
    values = _shallow(values)
    changed = dict(values)
    for name, value in values.items():
        if isinstance(value, dict) and any(hidden in value for hidden in _HIDDEN):
            changed[name] = _narrow(value)
        elif name in _WIDTHS and isinstance(value, int):
            changed[name] = min(value, _WIDTHS[name])
    hidden = next((name for name in _HIDDEN if isinstance(values.get(name), int)), None)
    heads = next((values[name] for name in _OWN_HEADS if isinstance(values.get(name), int)), None)
    if hidden and heads:
        few = min(heads, 4)
        changed[hidden] = values[hidden] // heads * few
        for name in _KEY_HEADS:
            if isinstance(values.get(name), int):
                changed[name] = max(1, values[name] * few // heads)
    return changed


def _move(model: Any) -> None:
    """Change all parameters, and what is saved with them, by random numbers."""
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in model.state_dict(keep_vars=True).items():
            if tensor.is_floating_point():
                moved = _MOVED if name in parameters else _MOVED / 5
                tensor.add_(moved * torch.randn_like(tensor))


@torch.no_grad()
def _read(model: Any) -> None:
    ids = torch.arange(5)[None]
    named = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
    model(input_ids=ids, **named)
