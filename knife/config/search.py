"""`{search: [VALUE, VALUE, …]}` in place of the value of a key of `student` or `align`: before a
run, each method gets the value of its own that is best on dev."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

from pydantic import BaseModel

from knife.config.overrides import flat, merge, nested

SECTIONS = ("student", "align")
SEARCH = "search"
# Values by dotted key.
Searches = dict[str, list[Any]]
Setting = dict[str, Any]


def without_searches(values: dict[str, Any]) -> tuple[dict[str, Any], Searches]:
    """Return the values of a config with the first of each search in its place, and the searches;
    one that is not written as it must be stays where it is."""
    searches = {
        key: value[SEARCH]
        for name in SECTIONS
        for key, value in _mappings(values.get(name), name)
        if _is_search(value)
    }
    for key, listed in searches.items():
        values = merge(values, nested(key, listed[0]))
    return values, searches


def with_searches(values: dict[str, Any], searches: Searches) -> dict[str, Any]:
    """Return the values of a config with the searches of its sections in their places."""
    for key, listed in searches.items():
        if key.partition(".")[0] in values:
            values = merge(values, nested(key, {SEARCH: listed}))
    return values


def checked_searches(
    first: dict[str, Any],
    searches: Searches,
    checked: Callable[[dict[str, Any]], BaseModel | None],
) -> tuple[Searches, list[str]]:
    """Return the searches with their values as the config has them that `checked` makes of each
    and of the `first` of the others, and an error for each value that is given twice."""
    found: Searches = {}
    errors = []
    for key, listed in searches.items():
        configs = [checked(merge(first, nested(key, value))) for value in listed]
        values = found[key] = [
            flat(config.model_dump(mode="json"))[key] if config else value
            for value, config in zip(listed, configs, strict=True)
        ]
        errors += [
            f"{key}: {SEARCH} has {value!r} twice; remove one"
            for number, value in enumerate(values)
            if value in values[:number]
        ]
    return found, errors


def misplaced(key: str, value: object) -> str | None:
    """Return what is wrong with a search that is left as the value of a key; None: it is none."""
    if not isinstance(value, dict) or SEARCH not in value:
        return None
    if key.partition(".")[0] in SECTIONS:
        return f"must be one value, or {{{SEARCH}: [VALUE, VALUE, …]}} with two values or more"
    return (
        f"must be one value: a run searches keys of {' and '.join(SECTIONS)} alone; for others, "
        "write a sweep (knife tune)"
    )


def settings(searches: Searches) -> list[Setting]:
    """Return every combination of the searched values; a single empty one without searches."""
    return [
        dict(zip(searches, values, strict=True)) for values in itertools.product(*searches.values())
    ]


def _mappings(value: object, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the mappings in a value, at any depth, each with its dotted key."""
    for name, inner in value.items() if isinstance(value, dict) else ():
        if isinstance(inner, dict):
            yield f"{key}.{name}", inner
            yield from _mappings(inner, f"{key}.{name}")


def _is_search(value: dict[str, Any]) -> bool:
    listed = value.get(SEARCH)
    return (
        len(value) == 1
        and isinstance(listed, list)
        and len(listed) > 1
        and not any(isinstance(each, dict) for each in listed)
    )
