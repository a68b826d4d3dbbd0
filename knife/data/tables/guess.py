"""Guesses which columns hold what by their usual names, and says so."""

import re
from typing import Any

from knife.config.columns import Columns
from knife.core.errors import UserError, raise_errors
from knife.data.fields import KNOWN, choice_fields, likely_field
from knife.data.tables.table import Table


def guessed(columns: Columns, table: Table, place: str) -> tuple[Columns, list[str]]:
    """Return the columns with those that are not given guessed, and a note that says which.

    Raises:
        UserError: there is no telling which column is the question or the answer.
    """
    names, free = table.names, _free(columns, table.names)
    found: dict[str, Any] = {}
    each = []
    if columns.choices is None:
        each = sorted(choice_fields(dict.fromkeys(free, "x")), key=_place)
        others = [name for name in free if name not in each]
        # One column that has all of them comes first.
        if any(likely_field(name) == "choices" for name in others):
            each = []
        free = [name for name in free if name not in each]
    for key in KNOWN:
        if getattr(columns, key) is not None:
            continue
        likely = [name for name in free if likely_field(name) == key]
        best = [name for name in likely if name.casefold() == key] or likely
        if len(best) > 1:
            raise UserError(
                f"{place}: {' and '.join(map(repr, best))} could each be the {key}; say which "
                f"(data.columns.{key}={best[0]})"
            )
        if best:
            found[key] = best[0] if key in ("id", "answer") else best
    if each:
        answer = columns.answer or found.get("answer")
        if all(name.casefold().startswith("distractor") for name in each) and answer:
            each = [answer, *each]
        found["choices"] = each
    whole = columns.model_copy(update=found)
    raise_errors(
        f"{place}: no column is named like the {key}; say which it is (data.columns.{key}=NAME); "
        f"the columns are {', '.join(names)}"
        for key in ("question", "answer")
        if not getattr(whole, key)
    )
    said = [
        f"{key} from {', '.join(value) if isinstance(value, list) else value}"
        for key, value in found.items()
    ]
    return whole, [f"{place}: by the names of its columns: {'; '.join(said)}"] if said else []


def _free(columns: Columns, names: list[str]) -> list[str]:
    """Return the columns that are not given for anything."""
    taken: set[str] = set()
    for key in ("question", "choices", "answer", "rationale", "id", "group"):
        value = getattr(columns, key)
        taken |= {value} if isinstance(value, str) else set(value or [])
    return [name for name in names if name not in taken]


def _place(name: str) -> tuple[str, int, str]:
    """Return what columns of choices are sorted by: their letter or number, as it is in the name,
    wherever they are in the table."""
    parts = re.fullmatch(r"(.*?)(\d*)([A-Za-z]?)", name.casefold())
    assert parts
    return parts[1], int(parts[2] or 0), parts[3]
