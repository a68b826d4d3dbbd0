"""The trials of a sweep as a table in the terminal, and all of them as a CSV file."""

import csv
import io
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from rich import box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from knife.core import strict_json
from knife.core.atomic import write_text
from knife.core.words import counted
from knife.terminal.console import clock
from knife.tune.search.labels import is_share, label, metric_label, short_keys, shown
from knife.tune.search.space import Space
from knife.tune.search.study import ranked
from knife.tune.search.trials import State, TrialRow, first_line

MOST_ROWS = 20
# Distinct errors that are listed below the table.
MOST_ERRORS = 5
# The width of a terminal without the table's edges, and the space between two columns.
_WIDTH = 78
_BETWEEN = 2
_LATER: tuple[State, ...] = ("finished", "pruned", "stopped", "failed")


def render(space: Space, rows: Sequence[TrialRow]) -> Table:
    """Render the trials, best first, then those without a result; below them, what failed and how
    many trials are left out. Readable at 80 columns."""
    finished, others = in_order(space, rows)
    below = [*_errors(rows), *_more([*finished, *others][MOST_ROWS:])]
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        caption=Text("\n".join(below)),
        caption_justify="left",
    )
    table.caption_style = ""
    rows = [*finished, *others][:MOST_ROWS]
    fixed: dict[str, list[str]] = {
        "trial": [str(row.number) for row in rows],
        metric_label(space).replace(" ", "\n", 1): [score_cell(space, row) for row in rows],
        "state": [str(row.state) for row in rows],
        "time": [clock(row.seconds) for row in rows],
    }
    for name in fixed:
        justify: Literal["left", "right"] = "right" if name in ("trial", "time") else "left"
        table.add_column(name, justify=justify, no_wrap=True)
    values = _values(space, rows, sum(_widths(fixed)))
    for name in values:
        table.add_column(name, overflow="fold")
    for number, cells in enumerate(zip(*fixed.values(), *values.values(), strict=True)):
        if number == len(finished) and finished:
            table.add_section()
        # As Text, since rich would take brackets in a value for markup.
        table.add_row(*map(Text, cells))
    return table


def in_order(space: Space, rows: Sequence[TrialRow]) -> tuple[list[TrialRow], list[TrialRow]]:
    """Return the trials with a result, best first, and the others, ordered by state."""
    finished = ranked(space, rows)
    numbers = {row.number for row in finished}
    others = [row for row in rows if row.number not in numbers]
    return finished, sorted(others, key=lambda row: (_LATER.index(row.state), row.number))


def write_csv(space: Space, rows: Sequence[TrialRow], path: Path) -> None:
    """Write every trial with all its values, by number; lists and mappings as JSON."""
    keys = list(space.sweep.space)
    seeds = sorted({seed for row in rows for seed in row.scores})
    tested = sorted({seed for row in rows for seed in row.tests})
    made = sorted({seed for row in rows for seed in row.students})
    head = ["number", "state", space.sweep.metric, "sd", "seconds", *keys]
    head += [f"{space.sweep.metric}_seed_{seed}" for seed in seeds]
    head += [f"test_accuracy_seed_{seed}" for seed in tested]
    head += [f"student_seed_{seed}" for seed in made]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*head, "by_epoch", "error"])
    for row in sorted(rows, key=lambda row: row.number):
        sd = _sd(row)
        writer.writerow(
            [
                *(row.number, row.state, _cell(row.score), _cell(sd), _cell(row.seconds)),
                *(_json(row.point[key]) if key in row.point else "" for key in keys),
                *(_cell(row.scores.get(seed)) for seed in seeds),
                *(_cell(row.tests.get(seed)) for seed in tested),
                *(_cell(row.students.get(seed)) for seed in made),
                strict_json.dumps(row.by_epoch) if row.by_epoch else "",
                _cell(row.error),
            ]
        )
    write_text(path, text.getvalue(), newline="")


def _values(space: Space, rows: Sequence[TrialRow], taken: int) -> dict[str, list[str]]:
    """Return cells by column: one column for each key, or one for all if they do not fit."""
    domains = space.sweep.space
    cells = {
        name: [label(domains[key], row.point[key]) for row in rows]
        for key, name in short_keys(domains).items()
    }
    # Headers wrap at dots and underscores, cells at spaces.
    headers = {name: re.sub(r"(?<=[._])", "\n", name) for name in cells}
    columns = {headers[name]: column for name, column in cells.items()}
    needed = _widths({h: [w for c in column for w in c.split()] for h, column in columns.items()})
    if taken + sum(needed) <= _WIDTH:
        return columns
    points = zip(*cells.values(), strict=True)
    return {
        "values": [
            ", ".join(f"{name}={value}" for name, value in zip(cells, point, strict=True))
            for point in points
        ]
    }


def _widths(columns: dict[str, list[str]]) -> list[int]:
    """Return the widths of the columns, including the space between them."""
    return [
        max(map(cell_len, [*header.split("\n"), *cells])) + _BETWEEN
        for header, cells in columns.items()
    ]


def score_cell(space: Space, row: TrialRow) -> str:
    """Format a trial's score in the metric's unit, with the standard deviation over several
    seeds."""
    if row.score is None:
        return ""
    sd = _sd(row)
    digits = 1 if is_share(space) else 4
    spread = "" if sd is None else f" ± {shown(space, sd):.{digits}f}"
    return f"{shown(space, row.score):>5.{digits}f}{spread}"


def _sd(row: TrialRow) -> float | None:
    return statistics.stdev(row.scores.values()) if len(row.scores) > 1 else None


def _errors(rows: Sequence[TrialRow]) -> list[str]:
    """Return the first line of each error, with the trials that failed with it."""
    found: dict[str, list[int]] = {}
    for row in rows:
        if row.state == "failed":
            found.setdefault(first_line(row.error), []).append(row.number)
    lines = [f"{_trials(numbers)} failed: {error}" for error, numbers in found.items()]
    left = [number for numbers in list(found.values())[MOST_ERRORS:] for number in numbers]
    return lines[:MOST_ERRORS] + ([f"{_trials(left)} failed in other ways."] if left else [])


def _more(rows: Sequence[TrialRow]) -> list[str]:
    if not rows:
        return []
    counts = {state: sum(row.state == state for row in rows) for state in _LATER}
    words = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    return [f"{counted(len(rows), 'more trial')}: {words}."]


def _trials(numbers: list[int]) -> str:
    if len(numbers) == 1:
        return f"Trial {numbers[0]}"
    return f"Trials {', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"


def _cell(value: Any) -> Any:
    return "" if value is None else value


def _json(value: Any) -> str:
    return value if isinstance(value, str) else strict_json.dumps(value)
