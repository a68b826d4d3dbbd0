"""Mappings of config keys: read from YAML, built from `KEY=VALUE` words, and merged."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from knife.core import strict_json
from knife.core.errors import UserError, raise_errors

# `KEY=VALUE` words of a command line, or values by dotted key.
Overrides = Sequence[str] | Mapping[str, Any]


def merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return `base` updated with `changes`, recursively through nested mappings."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        nested = isinstance(old, dict) and isinstance(value, dict)
        merged[key] = merge(old, value) if nested else value  # type: ignore[arg-type]
    return merged


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a mapping from a YAML file.

    Raises:
        UserError: it is not valid YAML, or not a mapping.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        line = f":{where.line + 1}" if where else ""
        problem = getattr(error, "problem", None) or "not UTF-8 text"
        raise UserError(f"{path}{line}: not valid YAML: {problem}") from error
    if not isinstance(values, dict):
        raise UserError(
            f"{path}: must be a mapping of config keys, but got {type(values).__name__}"
        )
    return values


def read_overrides(overrides: Overrides) -> dict[str, Any]:
    """Turn `["a.b=1"]` or `{"a.b": 1}` into `{"a": {"b": 1}}`; values of words are read as YAML."""
    values: dict[str, Any] = {}
    if isinstance(overrides, Mapping):
        for key, value in overrides.items():
            values = merge(values, nested(key, value))
        return values
    errors = []
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            errors.append(f"{override!r}: an override must be KEY=VALUE, such as data.fraction=0.1")
            continue
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            errors.append(f"{key}: {text!r} is not a YAML value")
            continue
        values = merge(values, nested(key, value))
    raise_errors(errors)
    return values


def flat(values: dict[str, Any]) -> dict[str, Any]:
    """Flatten nested mappings into one with dotted keys."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            found |= {f"{key}.{inner}": leaf for inner, leaf in flat(value).items()}
        else:
            found[key] = value
    return found


def nested(key: str, value: Any) -> dict[str, Any]:
    """Turn `a.b` and 1 into `{"a": {"b": 1}}`."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return value  # type: ignore[no-any-return]


def describe(values: Mapping[str, Any]) -> str:
    """Describe values by dotted key: `align.input.weight=30 student.learning_rate=0.003`."""
    return " ".join(
        f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={_short(value)}"
        for key, value in values.items()
    )


def plain(value: Any) -> Any:
    """Return a single value as it is, and a list or a mapping as JSON."""
    single = value is None or isinstance(value, bool | int | float | str)
    return value if single else strict_json.dumps(value)


def _short(value: Any) -> Any:
    return value["name"] if isinstance(value, dict) and "name" in value else plain(value)
