"""Finds how many tokens a model can read at a time, by observing its embedding lookups."""

from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from knife.models.families import (
    ONE_SEQUENCE,
    ROTARY,
    decoder_config,
    family,
    reader_config,
)
from knife.models.shrunk import shrunk_model

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
        # Beyond this length, the factors of all texts of a batch depend on its longest one.
        rope = getattr(config, "rope_parameters", None) or {}
        if rope.get("rope_type") == "longrope":
            windows.append(rope.get("original_max_position_embeddings"))
    if config.model_type not in ROTARY:
        windows.append(_known_rows(config))
    # Some say 0 for none.
    return min(filter(None, windows), default=None)


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


# By all values of a config.
_ROWS: dict[str, int | None] = {}


def _known_rows(config: Any) -> int | None:
    values = config.to_json_string(use_diff=False)
    if values not in _ROWS:
        _ROWS[values] = _table_rows(config)
    return _ROWS[values]


def _table_rows(config: Any) -> int | None:
    """Return how many rows of a model's table of positions serve tokens, or None without a table.

    RoBERTa and similar models start after the padding row, so that a table of 514 rows serves 512
    tokens. No config says so: a small model of the kind reads two texts, and its lookups are
    recorded.
    """
    model = shrunk_model(config)
    seen = [_lookups(model.base_model, length) for length in (_SHORT, _LONG)]
    rows = [
        table_rows - (last - (_LONG - 1))
        for (_, first, _), (alone, last, table_rows) in zip(*seen, strict=True)
        if alone and last - first == _LONG - _SHORT
    ]
    return min(rows, default=None)


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
