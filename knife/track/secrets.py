"""Passwords out of everything that is recorded or shown."""

import re
from typing import Any

# scheme://user:password@host up to the last @ (a password may hold any letter; rather too much
# is taken out than too little), scheme://token@host, and ?password=… in a query.
_USER = re.compile(r"(?<=://)(?:[^\s/?#@:]*:[^\s\"']*@|[^\s/?#]*@)")
_QUERY = re.compile(
    r"(?i)([?&](?:password|passwd|pwd|token|secret|api_?key|sslpassword)=)[^&\s'\"]+"
)


def redact(text: str) -> str:
    """`text` with user and password of every address in it replaced by `***`."""
    return _QUERY.sub(r"\1***", _USER.sub("***@", text))


def redact_values(value: Any) -> Any:
    """`value` (nested mappings and lists) with every text in it redacted."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {key: redact_values(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [redact_values(inner) for inner in value]
    return value
