"""Short labels for the keys, values and scores of a sweep, for tables and plots."""

from collections.abc import Iterable
from pathlib import PurePath
from typing import Any

from knife.core import strict_json
from knife.tune.search.settings import Domain
from knife.tune.search.space import Space


def short_keys(keys: Iterable[str]) -> dict[str, str]:
    """Map each dotted key to its last part, or to as many last parts as make it unique."""
    parts = {key: key.split(".") for key in keys}

    def ending(key: str, count: int) -> str:
        return ".".join(parts[key][-count:])

    def length(key: str) -> int:
        others = [other for other in parts if other != key]
        return next(
            count
            for count in range(1, len(parts[key]) + 1)
            if count == len(parts[key])
            or all(ending(key, count) != ending(other, count) for other in others)
        )

    return {key: ending(key, length(key)) for key in parts}


def label(domain: Domain, value: Any) -> str:
    """Return a short label for a value of the domain, or its JSON if the label is ambiguous."""
    words = _words(value)
    if any(_words(other) == words and other != value for other in domain.values):
        return value if isinstance(value, str) else strict_json.dumps(value)
    return words


def point_label(space: Space, point: dict[str, Any], keys: Iterable[str]) -> str:
    """Return the point's values of the keys, as in `knife, fraction=0.1`: methods by name alone."""
    names = short_keys(keys)
    return ", ".join(
        label(space.sweep.space[key], point[key])
        if key == "methods"
        else f"{name}={label(space.sweep.space[key], point[key])}"
        for key, name in names.items()
    )


def is_share(space: Space) -> bool:
    """Whether the sweep's metric is shown in percent."""
    return space.sweep.metric.endswith("accuracy")


def metric_label(space: Space) -> str:
    """Return the name of the sweep's metric with its unit."""
    words = space.sweep.metric.replace("_", " ")
    return f"{words} (%)" if is_share(space) else words


def shown(space: Space, score: float) -> float:
    """Convert a score to the unit of `metric_label`."""
    return 100 * score if is_share(space) else score


def _words(value: Any) -> str:
    if isinstance(value, dict):
        if isinstance(value.get("name"), str):
            return str(value["name"])
        return " ".join(f"{key}:{_words(inner)}" for key, inner in value.items())
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, str):
        # The sweep's paths are absolute, and usually only their last parts differ.
        return PurePath(value).name or value if value.startswith("/") else value
    return strict_json.dumps(value)
