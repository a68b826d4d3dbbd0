"""A config as MLflow params and tags: flat strings within its limits, without passwords."""

from typing import Any

from knife.config.overrides import flat
from knife.core import strict_json
from knife.track.secrets import redact, redact_values

# From mlflow.utils.validation; some servers refuse longer values and others truncate them.
KEY_LENGTH = 250
PARAM_LENGTH = 6000
TAG_LENGTH = 8000


def to_params(config: dict[str, Any]) -> dict[str, str]:
    """Flatten a config to dotted keys and strings: `{"a": {"b": [1, 2]}}` to `{"a.b": "[1, 2]"}`.

    A list is one param, written as JSON. Values beyond MLflow's limit are cut and end in "…".
    """
    return {
        key[:KEY_LENGTH]: _cut(_text(value), PARAM_LENGTH)
        for key, value in flat(redact_values(config)).items()
    }


def to_tags(tags: dict[str, str]) -> dict[str, str]:
    """Remove passwords from tags, and cut them to MLflow's limits."""
    return {key[:KEY_LENGTH]: _cut(redact(str(value)), TAG_LENGTH) for key, value in tags.items()}


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return strict_json.dumps(value, ensure_ascii=False, default=str)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
