"""Finds how many tokens a model can read at a time, by observing its embedding lookups."""

import copy
import json
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from knife.models.families import (
    ONE_SEQUENCE,
    ROTARY,
    decoder_config,
    family,
    model_class,
    reader_config,
)

# Lengths of two texts: the last rows looked up in a table of positions differ by as much.
_SHORT, _LONG = 5, 9


def positions(config: Any) -> int | None:
    """Return how many tokens a model can read, or None if it only has relative positions."""
    if config.model_type in ONE_SEQUENCE:
        return None
    if config.is_encoder_decoder:
        return _stated(reader_config(config), "max_encoder_position_embeddings")
    windows = [getattr(config, "max_position_embeddings", None)]
    if family(config) == "decoder":
        # Our mask shows layers what their window would hide, so texts must fit into the window.
        windows.append(getattr(config, "sliding_window", None))
        # Beyond this length, the factors of all texts of a batch depend on its longest one.
        rope = getattr(config, "rope_parameters", None) or {}
        if rope.get("rope_type") == "longrope":
            windows.append(rope.get("original_max_position_embeddings"))
    if config.model_type not in ROTARY:
        windows.append(_table_rows(config.model_type, config.to_json_string(use_diff=False)))
    return min((window for window in windows if window is not None), default=None)


def decoder_positions(config: Any) -> int | None:
    """Return how many tokens the decoder of an encoder-decoder can read; None for other models, and
    if it only has relative positions."""
    if not config.is_encoder_decoder or config.model_type in ONE_SEQUENCE:
        return None
    return _stated(decoder_config(config), "max_decoder_position_embeddings")


def _stated(config: Any, own: str) -> int | None:
    """Return the number of positions that a config states; LED has one for each part (`own`)."""
    found: int | None = getattr(config, own, getattr(config, "max_position_embeddings", None))
    return found


@lru_cache(maxsize=32)
def _table_rows(kind: str, values: str) -> int | None:
    """Return how many rows of a model's table of positions serve tokens, or None without a table.

    RoBERTa and similar models start after the padding row, so that a table of 514 rows serves 512
    tokens. No config says so: a model with uninitialised weights reads two texts, and its lookups
    are recorded.
    """
    from transformers import CONFIG_MAPPING
    from transformers.initialization import no_init_weights

    config = _shallow(CONFIG_MAPPING[kind].from_dict(json.loads(values)))
    with no_init_weights():
        model = model_class(config)(config).eval()
    seen = [_lookups(model.base_model, length) for length in (_SHORT, _LONG)]
    rows = [
        table_rows - (last - (_LONG - 1))
        for (_, first, _), (alone, last, table_rows) in zip(*seen, strict=True)
        if alone and last - first == _LONG - _SHORT
    ]
    return min(rows, default=None)


def _shallow(config: Any) -> Any:
    """Return the config with one layer, whose model looks up the same positions."""
    shallow = copy.deepcopy(config)
    shallow.num_hidden_layers = 1
    # Per-layer settings, such as ModernBERT's attention types or Longformer's windows.
    for name in ("layer_types", "attention_window"):
        if isinstance(each := getattr(shallow, name, None), list):
            setattr(shallow, name, each[:1])
    return shallow


def _lookups(model: Any, length: int) -> list[tuple[bool, int, int]]:
    """Return for each embedding lookup, while reading `length` equal tokens, whether it is by a
    single row of indices, the largest index, and the number of the table's rows."""
    pad = model.config.pad_token_id
    ids_1L = torch.full((1, length), 1 if pad == 0 else 0)
    found = _Lookups()
    with torch.no_grad(), found:
        model(input_ids=ids_1L)
    return found.seen


class _Lookups(TorchFunctionMode):
    """Records every embedding lookup, whichever module makes it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[bool, int, int]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call `func`, and record it if it is a lookup."""
        if func is nn.functional.embedding:
            ids, weight = args[:2] if len(args) > 1 else (args[0], (kwargs or {})["weight"])
            self.seen.append((ids.shape[-1] == ids.numel(), int(ids.max()), len(weight)))
        return func(*args, **(kwargs or {}))
