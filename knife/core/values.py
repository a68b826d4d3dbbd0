"""Python values as a JSON or YAML file would hold them."""

import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

from knife.core import strict_json


def as_json(value: Any) -> str:
    """Return JSON with paths as strings, numpy scalars as numbers, and any iterable as a list.

    Raises:
        TypeError, ValueError: JSON cannot hold it.
    """
    return strict_json.dumps(value, default=_known)


def plain(value: Any) -> Any:
    """Return `value` as it would be read back from the file.

    Raises:
        TypeError, ValueError: a file cannot hold it.
    """
    return json.loads(as_json(value))


def _known(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Iterable):
        return list(value)
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} is neither text, number, list nor mapping")
