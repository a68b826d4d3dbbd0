"""Standard JSON (RFC 8259): Python's NaN and Infinity are neither written nor read."""

import json
import math
from typing import Any, NoReturn


def dumps(value: Any, **layout: Any) -> str:
    """Return `value` as JSON; `layout` is passed to `json.dumps`.

    Raises:
        ValueError: a number in it is NaN or infinite. A missing value must be None.
        TypeError: JSON cannot hold it.
    """
    try:
        return json.dumps(value, allow_nan=False, **layout)
    except ValueError as error:
        if "Out of range" not in str(error):
            raise
        raise ValueError(
            "a number in it is NaN or infinite, which JSON cannot represent: use None where a "
            "value is missing"
        ) from None


def loads(text: str | bytes) -> Any:
    """Parse JSON from an outside source.

    Raises:
        ValueError: it is not JSON, or a number in it is NaN, infinite or beyond a float's range.
    """
    return decoder().decode(text if isinstance(text, str) else text.decode())


def decoder(**settings: Any) -> json.JSONDecoder:
    """Return the decoder that `loads` uses, with further `settings` of `json.JSONDecoder`."""
    return json.JSONDecoder(parse_constant=_no_number, parse_float=_finite, **settings)


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value: write null where a value is missing")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text} is too large")
    return value
