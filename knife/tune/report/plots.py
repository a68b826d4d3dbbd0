"""Plots of a sweep, for files and its report; parallel coordinates and contour are optuna's."""

import operator
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knife.core.atomic import replacing
from knife.report import figures
from knife.tune.report.curves import FRACTION, combinations, low_resource
from knife.tune.report.measured import Measured
from knife.tune.report.view import LEAST_FOR_IMPORTANCE, View
from knife.tune.search.labels import metric_label, shown
from knife.tune.search.space import Space
from knife.tune.search.study import quiet_optuna
from knife.tune.search.trials import TrialRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

# Fewer trials say nothing about a surface over two keys.
LEAST_FOR_CONTOUR = 4
_DOTS_PER_INCH = 150
_MOST_TICKS = 8
_WEIGHTS = ("align.input.weight", "align.output.weight")
_UNITS = {"s": 1, "min": 60, "h": 3600}
# Colours for different kinds of marks, distinguishable by the colour-blind.
_PLAIN, _STRONG, _FAINT = figures.COLOURS[0], figures.COLOURS[1], "0.55"
# From worst to best score: visible on light and dark backgrounds, where optuna's own fades.
_SCALE = (figures.COLOURS[4], "#999999", figures.COLOURS[0])


@dataclass(frozen=True)
class Plot:
    """A figure in the report's style, and a description of what it shows."""

    figure: "Figure"
    words: str


@dataclass(frozen=True)
class Plots:
    """The plots that were drawn.

    Attributes:
        drawn: plots by name.
        left_out: why a plot could not be drawn from these trials, a sentence by plot name.
    """

    drawn: dict[str, Plot]
    left_out: dict[str, str]


def plots(space: Space, rows: Sequence[TrialRow]) -> Plots:
    """Draw all plots that the trials allow.

    These are `history`, `importance`, `parallel`, `slice`, `contour` and `pareto`, and `curves` if
    the space has `data.fraction`, or `combinations` if it is a grid without that key.
    """
    view = View(space, rows)
    wanted: dict[str, Callable[[View], Plot]] = {
        "history": _history,
        "importance": _importance,
        "parallel": _parallel,
        "slice": _slice,
        "contour": _contour,
        "pareto": _pareto,
    }
    if FRACTION in space.sweep.space:
        wanted["curves"] = _curves
    elif space.sweep.search == "grid":
        wanted["combinations"] = _combinations
    found = Plots({}, {})
    for name, plot in wanted.items():
        try:
            with quiet_optuna(), _pyplot_of_our_own():
                found.drawn[name] = plot(view)
        except _TooLittleError as error:
            found.left_out[name] = str(error)
    return found


def write_pictures(found: Plots, folder: Path) -> dict[str, Path]:
    """Write the plots as PNG files, replacing earlier ones; return the files by plot name."""
    written = {}
    for name, plot in found.drawn.items():
        written[name] = folder / f"{name}.png"
        with replacing(written[name]) as unfinished:
            plot.figure.savefig(
                unfinished,
                format="png",
                dpi=_DOTS_PER_INCH,
                bbox_inches="tight",
                facecolor="white",
            )
    for name in found.left_out:
        (folder / f"{name}.png").unlink(missing_ok=True)
    return written


class _TooLittleError(Exception):
    """The trials are not enough for a plot."""


def _need(fine: bool, sentence: str) -> None:
    if not fine:
        raise _TooLittleError(sentence)


def _history(view: View) -> Plot:
    from matplotlib.ticker import MaxNLocator

    _need(bool(view.finished), "No trial has finished, so there is no score to show.")
    figure, (axes,) = figures.panels(1, 1, 6.4, 4.8)
    finished = sorted(view.finished, key=lambda row: row.number)
    numbers, scores = [row.number for row in finished], _scores(view, finished)
    so_far = accumulate(scores, max if view.space.sweep.direction == "max" else min)
    axes.scatter(numbers, scores, label="finished", color=_PLAIN)
    axes.step(numbers, list(so_far), where="post", label="best so far", color=_STRONG, alpha=0.8)
    ended = [r for r in view.rows if r.state in ("pruned", "stopped") and r.score is not None]
    if ended:
        axes.scatter(
            [row.number for row in ended],
            _scores(view, ended),
            label="ended early",
            color=_FAINT,
            marker="x",
        )
    _title(axes, view, "scores of the trials")
    axes.set_xlabel("trial")
    axes.set_ylabel(metric_label(view.space))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0))
    best, worst = view.finished[0], view.finished[-1]
    words = f"{metric_label(view.space)} by trial, {len(view.finished)} finished: the best is "
    words += f"{_score(view, best)} of trial {best.number}, the worst "
    return Plot(figure, words + f"{_score(view, worst)} of trial {worst.number}.")


def _importance(view: View) -> Plot:
    _need(len(view.finished) > 1, "Importance needs at least two finished trials.")
    _need(view.scores_differ, "All scores are equal, so no key has any importance.")
    _need(len(view.keys) > 1, "Importance compares keys, but only one key has several values.")
    least = LEAST_FOR_IMPORTANCE
    few = f"Importance needs at least {least} finished trials: with fewer, it would be chance."
    _need(len(view.finished) >= least, few)
    _need(
        bool(view.importances),
        "Good trials cannot be told apart from the others, so no key has any importance.",
    )
    figure, (axes,) = figures.panels(1, 1, 7.0, 1.4 + 0.4 * len(view.keys))
    bars = axes.barh(list(view.importances), list(view.importances.values()), color=_PLAIN)
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.invert_yaxis()
    _title(axes, view, "how much each key matters for being among the best")
    axes.set_xlabel("importance (all keys together: 1)")
    shares = ", ".join(f"{key} {share:.2f}" for key, share in view.importances.items())
    return Plot(figure, f"Importance of each key, all together 1: {shares}.")


def _parallel(view: View) -> Plot:
    from optuna.visualization.matplotlib import plot_parallel_coordinate

    _need(len(view.finished) > 1, "Parallel coordinates need at least two finished trials.")
    _need(len(view.keys) > 1, "Parallel coordinates need two keys whose values differ.")
    axes = plot_parallel_coordinate(
        view.study, params=view.keys, target_name=metric_label(view.space)
    )
    figure = _figure(axes)
    figure.set_size_inches(1.5 + 1.9 * len(view.keys), 5.0)
    (lines,) = axes.collections
    lines.set(
        cmap=_scale(view.space.sweep.direction == "max"), linewidth=1.6, alpha=0.8, clip_on=False
    )
    # The first axis shows what the colours mean.
    if lines.colorbar:
        lines.colorbar.remove()
    # Optuna orders the keys alphabetically, and truncates long ones.
    keys = sorted(view.keys)
    axes.grid(False)
    for key, other in zip(keys, figure.axes[1:], strict=True):
        other.grid(False)
        other.spines["right"].set_visible(True)
        _plain_numbers(other.yaxis, view, key)
        for text in other.get_yticklabels():
            # Lines cross the labels.
            text.set_bbox(
                {"facecolor": figures.GROUND, "edgecolor": "none", "alpha": 0.75, "pad": 0.8}
            )
    names = [metric_label(view.space), *keys]
    axes.set_xticks(range(len(names)), names, rotation=-25, ha="left", rotation_mode="anchor")
    _title(axes, view, "one line per finished trial")
    words = f"Values of {', '.join(keys)} and score of each finished trial"
    return Plot(figure, f"{words}, as in the table of trials.")


def _slice(view: View) -> Plot:
    from matplotlib.ticker import MaxNLocator

    _need(len(view.finished) > 1, "Slices need at least two finished trials.")
    _need(bool(view.numeric_keys), "No key has several numeric values.")
    keys = view.numeric_keys[:2]
    figure, panels = figures.panels(len(keys), 2, 4.5 + 1.5 / len(keys), 4.5, sharey=True)
    numbers = [row.number for row in view.finished]
    for axes, key in zip(panels, keys, strict=True):
        values = [row.point[key] for row in view.finished]
        points = axes.scatter(values, _scores(view, view.finished), 40, numbers, cmap=_scale())
        axes.set_xscale("log" if view.is_logarithmic(key) else "linear")
        axes.set_xlabel(key)
        _plain_numbers(axes.xaxis, view, key)
    panels[0].set_ylabel(metric_label(view.space))
    bar = figure.colorbar(points, ax=panels, label="trial")
    bar.ax.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    figure.suptitle(_words(view, "score by the numeric keys that matter most"))
    words = f"{metric_label(view.space)} of each finished trial by {' and by '.join(keys)}"
    return Plot(figure, f"{words}, as in the table of trials.")


def _contour(view: View) -> Plot:
    from matplotlib.contour import ContourSet
    from optuna.visualization.matplotlib import plot_contour

    least = LEAST_FOR_CONTOUR
    _need(len(view.finished) >= least, f"A contour needs at least {least} finished trials.")
    _need(len(view.numeric_keys) > 1, "A contour needs two keys with several numeric values.")
    _need(view.scores_differ, "All scores are equal, so a contour has no lines.")
    weights = [key for key in view.numeric_keys if key in _WEIGHTS]
    # Show the keys that matter most, but the two weights of the alignment belong together.
    keys = weights if len(weights) == len(_WEIGHTS) else view.numeric_keys[:2]
    axes: Any = plot_contour(view.study, params=keys, target_name=metric_label(view.space))
    axes.grid(False)
    for part in axes.collections:
        if not isinstance(part, ContourSet):
            part.set(sizes=[18])
        elif part.filled:
            part.set_cmap(_scale(view.space.sweep.direction == "max"))
    _plain_numbers(axes.xaxis, view, axes.get_xlabel())
    _plain_numbers(axes.yaxis, view, axes.get_ylabel())
    _title(axes, view, "score, interpolated between the trials")
    best = view.finished[0]
    words = f"{metric_label(view.space)} over {' and '.join(keys)}; the best trial, {best.number}, "
    words += f"has {_score(view, best)} at {' and '.join(f'{best.point[k]:.4g}' for k in keys)}."
    return Plot(_figure(axes), words)


def _pareto(view: View) -> Plot:
    _need(len(view.finished) > 1, "A Pareto front needs at least two finished trials.")
    middle = statistics.median(row.seconds for row in view.finished)
    unit = [unit for unit, seconds in _UNITS.items() if seconds == 1 or middle >= 2 * seconds][-1]
    numbers = [row.number for row in view.finished]
    score_of = dict(zip(numbers, _scores(view, view.finished), strict=True))
    front: list[TrialRow] = []
    is_better = operator.gt if view.space.sweep.direction == "max" else operator.lt
    # Of trials that took equally long, the best comes first.
    for row in sorted(view.finished, key=lambda row: row.seconds):
        if not front or is_better(score_of[row.number], score_of[front[-1].number]):
            front.append(row)
    figure, (axes,) = figures.panels(1, 1, 6.4, 4.8)
    others = [row for row in view.finished if row not in front]
    labels = (("trial", _PLAIN, others), ("none is both better and faster", _STRONG, front))
    for words, colour, rows in labels:
        seconds = [row.seconds / _UNITS[unit] for row in rows]
        axes.scatter(seconds, _scores(view, rows), label=words, color=colour)
    said = []
    for row in sorted(front, key=lambda row: row.number):
        place = row.seconds / _UNITS[unit], score_of[row.number]
        axes.annotate(str(row.number), place, (5, 4), textcoords="offset points")
        said.append(f"trial {row.number} has {_score(view, row)} after {place[0]:.3g} {unit}")
    axes.set_xlabel(f"time ({unit})")
    axes.set_ylabel(metric_label(view.space))
    _title(axes, view, "score against cost")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2)
    words = f"{metric_label(view.space)} by time. None is both better and faster than these: "
    return Plot(figure, f"{words}{'; '.join(said)}.")


def _curves(view: View) -> Plot:
    _need(bool(view.finished), "No trial has finished, so there are no curves.")
    _need(FRACTION in view.keys, "Curves need finished trials with at least two fractions.")
    found = Measured.of(view.space, view.rows)
    return Plot(low_resource(found), f"{found.label} by share of the training split, as below.")


def _combinations(view: View) -> Plot:
    _need(len(view.finished) > 1, "Combinations need at least two finished trials.")
    found = Measured.of(view.space, view.rows)
    return Plot(combinations(found), f"{found.label} by combination of values, as below.")


@contextmanager
def _pyplot_of_our_own() -> Iterator[None]:
    """Leave others' style, backend and figures unchanged, since optuna draws with pyplot."""
    import matplotlib
    from matplotlib import pyplot, style

    backend = matplotlib.get_backend(auto_select=False)
    others = set(pyplot.get_fignums())
    # Optuna applies this style to each plot, in place of the current one.
    ggplot = style.library["ggplot"]
    style.library["ggplot"] = matplotlib.RcParams(figures.SETTINGS)
    try:
        with style.context(["default", figures.SETTINGS]):
            pyplot.switch_backend("agg")
            try:
                yield
            finally:
                for number in set(pyplot.get_fignums()) - others:
                    pyplot.close(number)
                # If none had been chosen yet, Agg stays.
                if backend:
                    pyplot.switch_backend(backend)
    finally:
        style.library["ggplot"] = ggplot


def _plain_numbers(axis: "Axis", view: View, key: str) -> None:
    """Put ticks at the values of a short list; on logarithmic axes, write numbers as 0.002, and few
    enough to fit side by side."""
    from matplotlib.ticker import (
        FixedLocator,
        FuncFormatter,
        LogLocator,
        MaxNLocator,
        NullFormatter,
    )

    values = view.space.sweep.space[key].values
    if key not in view.numeric_keys or not (values or axis.get_scale() == "log"):
        return
    low, high = axis.get_view_interval()
    if 0 < len(values) <= _MOST_TICKS:
        axis.set_major_locator(FixedLocator(values))
    elif axis.get_scale() == "log":
        steps = (1, 2, 5) if high < 30 * low else (1, 3) if high < 3000 * low else (1,)
        few = high < 5 * low
        axis.set_major_locator(MaxNLocator(4) if few else LogLocator(subs=steps))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    axis.set_minor_formatter(NullFormatter())


def _scale(best_is_high: bool = True) -> "Colormap":
    from matplotlib.colors import LinearSegmentedColormap

    colours = _SCALE if best_is_high else _SCALE[::-1]
    return LinearSegmentedColormap.from_list("knife", colours)


def _score(view: View, row: TrialRow) -> str:
    assert row.score is not None
    return f"{shown(view.space, row.score):.4g}"


def _scores(view: View, rows: Sequence[TrialRow]) -> list[float]:
    return [shown(view.space, row.score) for row in rows if row.score is not None]


def _title(axes: "Axes", view: View, words: str) -> None:
    axes.set_title(_words(view, words), loc="left", size="large", pad=9)
    for place in ("center", "right"):
        axes.set_title("", loc=place)


def _words(view: View, words: str) -> str:
    return f"{view.space.sweep.name}: {words}"


def _figure(axes: Any) -> "Figure":
    figure: Figure = axes.get_figure()
    return figure
