"""A small random model of the kind that a config describes, for tests of the kind."""

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
from transformers import PreTrainedConfig

from knife.models.families import family, model_class
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
    "hidden_size_per_layer_input": 8,
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
# The width of states whose heads have one of their own.
_STATES = 256
_HIDDEN = ("hidden_size", "d_model", "n_embd", "dim")
_OWN_HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads")
_KEY_HEADS = ("num_key_value_heads", "num_kv_heads")
# Heads, their width, and by how much they are wider together than the states, of recurrent layers.
_SCANS = (
    ("mamba_n_heads", "mamba_d_head", "mamba_expand"),
    ("n_mamba_heads", "mamba_headdim", "mamba_expand"),
    ("num_heads", "head_dim", "expand"),
)
# Ends of the names of numbers after which the types of layers repeat.
_PERIODS = ("_period", "_interval", "_pattern", "_step")
# How far every parameter is moved: many begin as 0 or 1, which would hide what they are for.
_MOVED = 0.05


def shrunk_model(config: Any) -> Any:
    """Return a transformers model with random weights, with a few layers of each type, and narrow
    if its config allows that; vocabulary, positions and widths of attention heads stay.

    Raises:
        ValueError: no model can be built, or it cannot read a text.
    """
    size = sum(parameter.numel() for parameter in bare_model(config).parameters())
    changes: tuple[Callable[[Any], None], ...] = (_narrow, _shallow, _leave)
    if size - _embeddings(config) <= _SMALL:
        changes = (_leave,)
    elif size > _LARGEST:
        changes = (_narrow, _shallow)
    reasons = []
    with torch.random.fork_rng(devices=[]):
        for change in changes:
            torch.manual_seed(0)
            try:
                small = copy.deepcopy(config)
                change(small)
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


def _leave(config: Any) -> None:
    """Change nothing."""


def _shallow(config: Any) -> None:
    """Leave a config as few layers as have all types."""
    values = vars(config)
    depth = next(iter(_numbers(config, _DEPTHS).values()), 0)
    kinds = values.get("layer_types") or values.get("layers_block_type") or []
    ends = [kinds.index(kind) + 1 for kind in set(kinds)]
    periods = _numbers(config, [name for name in values if name.endswith(_PERIODS)]).values()
    few = max([2, *ends, *periods])
    if values.get("num_kv_shared_layers"):
        # The later layers read what the earlier ones, of the same types, have kept.
        config.num_kv_shared_layers = few
        few *= 2
    for name, value in list(values.items()):
        if isinstance(value, list) and len(value) == depth:
            setattr(config, name, value[:few])
    for name, number in _numbers(config, _DEPTHS).items():
        setattr(config, name, min(number, few))
    for part in _parts(config):
        _shallow(part)


def _narrow(config: Any) -> None:
    """Leave a config few layers, heads and experts, and narrow ones."""
    _shallow(config)
    hidden = _numbers(config, _HIDDEN)
    heads = next(iter(_numbers(config, _OWN_HEADS).values()), None)
    few = min(heads or 1, 4)
    own = heads is None or "head_dim" in vars(config)
    for name, number in hidden.items():
        # Without a width of its own, a head has a share of the states.
        narrow = min(number, _STATES) if own else number // (heads or 1) * few
        setattr(config, name, narrow)
    for name, number in _numbers(config, _KEY_HEADS).items():
        setattr(config, name, max(1, number * few // (heads or 1)))
    for name, number in _numbers(config, _WIDTHS).items():
        setattr(config, name, min(number, _WIDTHS[name]))
    if isinstance(each := vars(config).get("intermediate_size"), list):
        config.intermediate_size = [_WIDTHS["intermediate_size"]] * len(each)
    for names in _SCANS:
        scan = _numbers(config, names)
        if len(scan) == len(names):
            setattr(config, names[0], scan[names[2]] * config.hidden_size // scan[names[1]])
    for part in _parts(config):
        _narrow(part)


def _numbers(config: Any, names: Iterable[str]) -> dict[str, int]:
    """Return those of a config's own values that are whole numbers, by name."""
    found = {name: vars(config).get(name) for name in names}
    return {n: v for n, v in found.items() if isinstance(v, int) and not isinstance(v, bool)}


def _parts(config: Any) -> list[Any]:
    """Return the configs of a model's parts, such as encoder and decoder."""
    return [each for each in vars(config).values() if isinstance(each, PreTrainedConfig)]


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
    named: dict[str, Any] = {}
    if model.config.is_encoder_decoder:
        named["decoder_input_ids"] = ids
    elif family(model.config) == "decoder":
        # Not every family can keep what its layers made.
        named["use_cache"] = False
    model(input_ids=ids, **named)
