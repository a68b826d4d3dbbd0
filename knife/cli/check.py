"""The check of a source's data: errors and findings, and what to expect of training on them."""

from dataclasses import asdict
from typing import Any

from knife.cli.show import read_data, used_splits
from knife.data.check import check
from knife.forecast.forecast import of_splits
from knife.terminal.counter import counter


def checked(source: str, overrides: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Return the findings as JSON-ready values, and as lines.

    Raises:
        UserError: with every error in overrides and source.
    """
    splits = used_splits(read_data(source, overrides))
    report = check(splits, counter)
    found = of_splits(splits)
    values = asdict(report) | {"forecast": asdict(found) if found else None}
    return values, report.lines() + ([f"forecast: {found.sentence()}"] if found else [])
