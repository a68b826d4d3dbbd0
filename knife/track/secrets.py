"""Removal of passwords from everything that is recorded or shown."""

import re
from typing import Any

# scheme://user:password@host up to the last @ (a password may contain any character; better to
# remove too much than too little), scheme://token@host, and ?password=… in a query.
_USER = re.compile(r"(?<=://)(?:[^\s/?#@:]*:[^\s\"']*@|[^\s/?#]*@)")
_QUERY = re.compile(
    r"(?i)([?&](?:password|passwd|pwd|token|secret|api_?key|sslpassword)=)[^&\s'\"]+"
)


def redact(text: str) -> str:
    """Replace user and password of every address in `text` by `***`."""
    return _QUERY.sub(r"\1***", _USER.sub("***@", text))


def redact_values(value: Any) -> Any:
    """Redact every string in `value` (nested mappings and lists)."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {key: redact_values(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [redact_values(inner) for inner in value]
    return value
