"""Plots with intervals: low-resource curves, and a whole grid."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from knife.report import figures
from knife.tune.report.measured import Measured
from knife.tune.report.view import LOG_SPREAD
from knife.tune.search.labels import point_label
from knife.tune.search.trials import TrialRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

FRACTION = "data.fraction"
# More lines make a panel unreadable; then each combination of the other keys gets its own panel.
MOST_LINES = 8
MOST_BARS = 40
# One more than the colours, so that a pair of both repeats only after 42 lines.
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def low_resource(measured: Measured) -> "Figure":
    """Plot score by share of the training split, a line for each combination of the other discrete
    keys. Of trials that differ only in continuous keys, the best is shown."""
    from matplotlib.figure import Figure

    keys = measured.discrete(but=FRACTION)
    rows = measured.best_by([FRACTION, *keys])
    inner = _inner(keys, measured, rows)
    outer = [key for key in keys if key not in inner]
    panels: dict[str, list[TrialRow]] = {}
    for row in rows:
        panels.setdefault(point_label(measured.space, row.point, outer), []).append(row)
    lines = list(dict.fromkeys(point_label(measured.space, row.point, inner) for row in rows))
    across = min(len(panels), 3)
    down = math.ceil(len(panels) / across)
    size = (7.0, 5.0) if len(panels) == 1 else (max(4.2 * across, 7.0), 3.2 * down + 1.0)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).flatten()
    for axes, (title, members) in zip(grid, panels.items(), strict=False):
        axes.set_title(title.replace(", ", "\n"), fontsize="medium")
        for number, line in enumerate(lines):
            found = [r for r in members if point_label(measured.space, r.point, inner) == line]
            _line(axes, measured, found, number, len(lines))
        _fraction_scale(axes, rows)
        axes.set_axisbelow(True)
        axes.tick_params(labelbottom=True)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    for axes in grid[max(len(panels) - across, 0) : len(panels)]:
        axes.set_xlabel("share of the training split (%)")
    for axes in grid[::across]:
        axes.set_ylabel(measured.label)
    figure.suptitle(
        f"{measured.space.sweep.name}: {measured.words} by training data\n{measured.note()}",
        fontsize="medium",
    )
    if lines != [""]:
        # Not taken from one panel: a line may be missing on any of them.
        handles = [_handle(number) for number in range(len(lines))]
        columns = max(1, min(len(lines), 80 // (6 + max(map(len, lines)))))
        figure.legend(handles, lines, loc="outside lower center", ncols=columns)
    return figure


def combinations(measured: Measured) -> "Figure":
    """Plot the score of each combination of the discrete keys as a bar, in trial order."""
    from matplotlib.figure import Figure

    keys = measured.discrete()
    rows = measured.best_by(keys)
    kept = {row.number for row in [r for r in measured.rows if r in rows][:MOST_BARS]}
    drawn = [row for row in rows if row.number in kept]
    named = _colour_key(keys)
    values = list(dict.fromkeys(point_label(measured.space, row.point, named) for row in drawn))
    figure = Figure(figsize=(7.5, 1.5 + 0.36 * len(drawn)), layout="constrained")
    axes = figure.subplots()
    ends = []
    for index, row in enumerate(drawn):
        found = measured.estimate(row)
        number = values.index(point_label(measured.space, row.point, named))
        axes.barh(
            index,
            found.mean,
            height=0.7,
            color=figures.COLOURS[number % len(figures.COLOURS)],
            alpha=0.85,
        )
        reach = ""
        if found.high > found.low:
            error = [[found.mean - found.low], [found.high - found.mean]]
            axes.errorbar(found.mean, index, xerr=error, color=figures.INK, capsize=3)
            reach = f" ({_number(measured, found.low)} to {_number(measured, found.high)})"
        text = f"{_number(measured, found.mean)}{reach}"
        axes.annotate(
            text, (found.high, index), (6, 0), textcoords="offset points", va="center", size=8
        )
        ends.append(found.high)
    names = [point_label(measured.space, row.point, keys) for row in drawn]
    axes.set_yticks(
        range(len(drawn)), [n or f"trial {r.number}" for n, r in zip(names, drawn, strict=True)]
    )
    axes.invert_yaxis()
    # Leave room for the numbers at the ends.
    axes.set_xlim(0, 1.35 * max(ends))
    if measured.is_share:
        axes.set_xticks([tick for tick in range(0, 101, 20) if tick <= 1.35 * max(ends)])
    axes.set_xlabel(measured.label)
    axes.spines[["top", "right"]].set_visible(False)
    left = f", the best {len(drawn)} of {len(rows)}" if len(drawn) < len(rows) else ""
    figure.suptitle(
        f"{measured.space.sweep.name}: {measured.words} by combination{left}\n{measured.note()}",
        fontsize="medium",
    )
    return figure


def _inner(keys: list[str], measured: Measured, rows: Sequence[TrialRow]) -> list[str]:
    """Return the keys in which the lines of one panel differ."""
    lines = {point_label(measured.space, row.point, keys) for row in rows}
    return keys if len(lines) <= MOST_LINES else _colour_key(keys)


def _colour_key(keys: list[str]) -> list[str]:
    """Return the key whose values are compared first."""
    return ["methods"] if "methods" in keys else keys[-1:]


def _line(axes: "Axes", measured: Measured, rows: list[TrialRow], number: int, count: int) -> None:
    rows = sorted(rows, key=lambda row: float(row.point[FRACTION]))
    found = [measured.estimate(row) for row in rows]
    # Draw intervals at equal fractions side by side.
    aside = 1 + 0.02 * (number - (count - 1) / 2)
    axes.errorbar(
        [100 * row.point[FRACTION] * aside for row in rows],
        [e.mean for e in found],
        yerr=[[e.mean - e.low for e in found], [e.high - e.mean for e in found]],
        **_style(number),
        linestyle="-",
        capsize=2.5,
        elinewidth=1.0,
    )


def _handle(number: int) -> "Line2D":
    from matplotlib.lines import Line2D

    return Line2D([], [], **_style(number))


def _style(number: int) -> dict[str, Any]:
    return {
        "color": figures.COLOURS[number % len(figures.COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "markersize": 5,
        "linewidth": 1.5,
    }


def _fraction_scale(axes: "Axes", rows: Sequence[TrialRow]) -> None:
    """Put ticks at the fractions of the trials, unless there are too many."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    fractions = sorted({100 * float(row.point[FRACTION]) for row in rows})
    if fractions[-1] > LOG_SPREAD * fractions[0]:
        axes.set_xscale("log")
    if len(fractions) <= 8:
        axes.set_xticks(fractions)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _number(measured: Measured, value: float) -> str:
    return f"{value:.1f}" if measured.is_share else f"{value:.3g}"
