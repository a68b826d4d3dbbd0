"""Errors of pydantic as lines that say which key is wrong, by its dotted name."""

import json
import re
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from knife.config.search import SEARCH, SECTIONS, misplaced
from knife.config.section import ConfigSection
from knife.core.errors import nearest


def section_errors(
    root: type[ConfigSection], error: ValidationError, prefix: str = ""
) -> list[str]:
    """Return the errors that pydantic found in a section, one line each, without duplicates."""
    # For each error in a variant, pydantic adds that it is not a method's name: only confusing.
    lines = (
        prefix + _line(root, e)
        for e in error.errors()
        if not (
            e["type"] == "literal_error"
            and isinstance(e["input"], dict)
            and e["loc"][0] == "methods"
        )
    )
    return list(dict.fromkeys(lines))


def _line(root: type[ConfigSection], error: Any) -> str:
    """Format one pydantic error as a line that starts with the dotted key."""
    where = [str(part) for part in error["loc"]]
    # Union members add their own names to the location: methods.0.Variant.name.
    where = [part for part in where if not re.match(r"^(literal|list|tuple|Variant)", part)]
    key = ".".join(where)
    if error["type"] == "extra_forbidden":
        if where[-1] == SEARCH and len(where) > 1:
            section = ".".join(where[:-1])
            return (
                f"{section}: is a section; give its keys {{{SEARCH}: [VALUE, …]}} as their values"
            )
        known = _keys(root, where[:-1])
        return f"{key}: unknown key; {nearest(where[-1], known)}"
    if error["type"] == "missing":
        return f"{key}: must be set"
    message = error["msg"].removeprefix("Value error, ")
    # A sweep has a key of that name, which is no search.
    if SECTIONS[0] in root.model_fields and (wrong := misplaced(key, error["input"])):
        message = wrong
    if "got" not in message:
        message += f", but got {json.dumps(error['input'], default=str)}"
    return f"{key}: {message[0].lower()}{message[1:]}"


def _keys(root: type[ConfigSection], where: list[str]) -> list[str]:
    """Return the known keys of the section at a dotted key."""
    section: type[BaseModel] = root
    for part in where:
        field = section.model_fields.get(part)
        for inner in _sections(field.annotation if field else None):
            section = inner
    return list(section.model_fields)


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the sections in a type, such as those of an optional section or in a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _sections(inner)
