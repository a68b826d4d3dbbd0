"""Plots of a sweep as PNG files: optuna's, and ours where it has none."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from knife.tune.curves import FRACTION, combinations, low_resource
from knife.tune.files import replacing
from knife.tune.labels import metric_label, shown
from knife.tune.measured import Measured
from knife.tune.space import Space
from knife.tune.study import quiet_optuna
from knife.tune.trials import TrialRow
from knife.tune.view import View

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

# Fewer trials say nothing of a surface over two keys.
LEAST_FOR_CONTOUR = 4
_DOTS_PER_INCH = 150
_MOST_TICKS = 8
_UNITS = {"s": 1, "min": 60, "h": 3600}
# For marks of different kinds, told apart by the colour-blind; and a scale that is dark at both
# ends, where optuna's own fades into the ground.
_PLAIN, _STRONG, _FAINT = "#0072B2", "#D55E00", "0.55"
_SCALE = "viridis"


@dataclass(frozen=True)
class Drawn:
    """What was drawn.

    Attributes:
        files: PNG file by the plot's name.
        left_out: a sentence why, by the name of a plot that these trials do not allow.
    """

    files: dict[str, Path]
    left_out: dict[str, str]


def draw(space: Space, rows: Sequence[TrialRow], folder: Path) -> Drawn:
    """Draw all plots that the trials allow into `folder`, in place of those of an earlier time.

    These are `history`, `importance`, `parallel`, `slice`, `contour` and `pareto`; `curves` where
    the space has `data.fraction`, and `combinations` where it is a grid without it.
    """
    view = View(space, rows)
    plots: dict[str, Callable[[View], Figure]] = {
        "history": _history,
        "importance": _importance,
        "parallel": _parallel,
        "slice": _slice,
        "contour": _contour,
        "pareto": _pareto,
    }
    if FRACTION in space.sweep.space:
        plots["curves"] = _curves
    elif space.sweep.search == "grid":
        plots["combinations"] = _combinations
    drawn = Drawn({}, {})
    for name, plot in plots.items():
        path = folder / f"{name}.png"
        try:
            with quiet_optuna(), _pyplot_of_our_own(), replacing(path) as unfinished:
                figure = plot(view)
                figure.savefig(unfinished, format="png", dpi=_DOTS_PER_INCH, bbox_inches="tight")
            drawn.files[name] = path
        except _TooLittleError as error:
            path.unlink(missing_ok=True)
            drawn.left_out[name] = str(error)
    return drawn


class _TooLittleError(Exception):
    """The trials do not allow a plot."""


def _need(fine: bool, sentence: str) -> None:
    if not fine:
        raise _TooLittleError(sentence)


def _history(view: View) -> "Figure":
    from matplotlib.ticker import FuncFormatter, MaxNLocator
    from optuna.visualization.matplotlib import plot_optimization_history

    _need(bool(view.finished), "No trial has finished, so there is no score to show.")
    axes = plot_optimization_history(view.study, target_name=metric_label(view.space))
    axes.collections[0].set(label="finished", color=_PLAIN)
    axes.lines[0].set(label="best so far", color=_STRONG, drawstyle="steps-post", alpha=0.8)
    ended = [r for r in view.rows if r.state in ("pruned", "stopped") and r.score is not None]
    if ended:
        axes.scatter(
            [view.numbers.index(row.number) for row in ended],
            [shown(view.space, row.score) for row in ended if row.score is not None],
            label="ended early",
            color=_FAINT,
            marker="x",
        )
    _title(axes, view, "scores of the trials")
    axes.set_xlabel("trial")
    axes.set_ylabel(metric_label(view.space))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.xaxis.set_major_formatter(FuncFormatter(_number_of(view)))
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0))
    return _figure(axes)


def _importance(view: View) -> "Figure":
    from optuna.visualization.matplotlib import plot_param_importances

    _need(len(view.finished) > 1, "Importance needs two finished trials at least.")
    _need(view.scores_differ, "All scores are equal, so no key has any importance.")
    _need(len(view.keys) > 1, "Importance compares keys, and of one key alone values differ.")
    axes = plot_param_importances(view.study, evaluator=view.evaluator, params=view.keys)
    for bar in axes.patches:
        bar.set_color(_PLAIN)
    for text in axes.texts:
        text.set_text(f" {text.get_text()}")
    legend = axes.get_legend()
    if legend:
        legend.remove()
    _title(axes, view, "how much the keys matter to be among the best")
    axes.set_xlabel("importance (all keys together: 1)")
    axes.set_ylabel("")
    _figure(axes).set_size_inches(7.0, 1.4 + 0.4 * len(view.keys))
    return _figure(axes)


def _parallel(view: View) -> "Figure":
    from optuna.visualization.matplotlib import plot_parallel_coordinate

    _need(len(view.finished) > 1, "Parallel coordinates need two finished trials at least.")
    _need(len(view.keys) > 1, "Parallel coordinates need two keys whose values differ.")
    axes = plot_parallel_coordinate(
        view.study, params=view.keys, target_name=metric_label(view.space)
    )
    figure = _figure(axes)
    figure.set_size_inches(1.5 + 1.9 * len(view.keys), 5.0)
    (lines,) = axes.collections
    low, high = lines.get_clim()
    margin = (high - low) / 5
    # The scale's palest colours are left to scores that are worse than any.
    best_is_high = view.space.sweep.direction == "max"
    lines.set_clim((low - margin, high) if best_is_high else (low, high + margin))
    lines.set(cmap=_scale(view), linewidth=1.6, alpha=0.8, clip_on=False)
    # The first axis says what the colours mean.
    if lines.colorbar:
        lines.colorbar.remove()
    # Optuna has the keys by the alphabet, and cuts the long ones.
    keys = sorted(view.keys)
    for key, other in zip(keys, figure.axes[1:], strict=True):
        _plain_numbers(other.yaxis, view, key)
        for text in other.get_yticklabels():
            # Lines run across the words.
            text.set_bbox({"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.8})
    names = [metric_label(view.space), *keys]
    axes.set_xticks(range(len(names)), names, rotation=-25, ha="left", rotation_mode="anchor")
    _title(axes, view, "a line a finished trial")
    return figure


def _slice(view: View) -> "Figure":
    from matplotlib.ticker import FuncFormatter, MaxNLocator
    from optuna.visualization.matplotlib import plot_slice

    _need(len(view.finished) > 1, "Slices need two finished trials at least.")
    _need(bool(view.numeric_keys), "No key has several numbers as its values.")
    keys = view.numeric_keys[:2]
    found = plot_slice(view.study, params=keys, target_name=metric_label(view.space))
    several: list[Axes] = list(np.atleast_1d(found))  # type: ignore[arg-type]
    figure = _figure(several[0])
    figure.set_size_inches(1.5 + 4.5 * len(keys), 4.5)
    for axes in several:
        axes.collections[0].set(cmap=_SCALE, sizes=[40])
        _plain_numbers(axes.xaxis, view, axes.get_xlabel())
    bar = figure.axes[-1]
    bar.set_ylabel("trial")
    bar.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    bar.yaxis.set_major_formatter(FuncFormatter(_number_of(view)))
    if len(keys) == 1:
        several[0].set_title("")
    figure.suptitle(_words(view, "score by the numeric keys that matter most"))
    return figure


def _contour(view: View) -> "Figure":
    from matplotlib.contour import ContourSet
    from optuna.visualization.matplotlib import plot_contour

    least = LEAST_FOR_CONTOUR
    _need(len(view.finished) >= least, f"A contour needs {least} finished trials at least.")
    _need(len(view.numeric_keys) > 1, "A contour needs two keys with several numbers as values.")
    _need(view.scores_differ, "All scores are equal, so a contour has no lines.")
    axes: Any = plot_contour(
        view.study, params=view.numeric_keys[:2], target_name=metric_label(view.space)
    )
    for part in axes.collections:
        if isinstance(part, ContourSet) and part.filled:
            part.set_cmap(_scale(view))
    _plain_numbers(axes.xaxis, view, axes.get_xlabel())
    _plain_numbers(axes.yaxis, view, axes.get_ylabel())
    _title(axes, view, "score between the trials, guessed from them")
    return _figure(axes)


def _pareto(view: View) -> "Figure":
    from optuna.visualization.matplotlib import plot_pareto_front

    _need(len(view.finished) > 1, "A Pareto front needs two finished trials at least.")
    middle = statistics.median(row.seconds for row in view.finished)
    unit = [unit for unit, seconds in _UNITS.items() if seconds == 1 or middle >= 2 * seconds][-1]
    front = plot_pareto_front(
        view.cost,
        target_names=[f"time ({unit})", metric_label(view.space)],
        targets=lambda trial: [trial.values[0] / _UNITS[unit], trial.values[1]],
    )
    labels = {"Trial": ("trial", _PLAIN), "Best Trial": ("none is both better and faster", _STRONG)}
    for points in front.collections:
        words, colour = labels[str(points.get_label())]
        points.set(label=words, color=colour)
    for trial in view.cost.best_trials:
        place = trial.values[0] / _UNITS[unit], trial.values[1]
        front.annotate(str(trial.user_attrs["number"]), place, (5, 4), textcoords="offset points")
    _title(front, view, "score against cost")
    front.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2)
    return _figure(front)


def _curves(view: View) -> "Figure":
    _need(bool(view.finished), "No trial has finished, so there are no curves.")
    _need(FRACTION in view.keys, "Curves need finished trials of two fractions at least.")
    return low_resource(Measured.of(view.space, view.rows))


def _combinations(view: View) -> "Figure":
    _need(len(view.finished) > 1, "Combinations are compared where two trials have finished.")
    return combinations(Measured.of(view.space, view.rows))


@contextmanager
def _pyplot_of_our_own() -> Iterator[None]:
    """Optuna draws by pyplot: style, backend and figures of others stay as they are."""
    import matplotlib
    from matplotlib import pyplot

    backend = matplotlib.get_backend(auto_select=False)
    others = set(pyplot.get_fignums())
    with pyplot.style.context("default"):
        pyplot.switch_backend("agg")
        try:
            yield
        finally:
            for number in set(pyplot.get_fignums()) - others:
                pyplot.close(number)
            # Where nobody had chosen one yet, Agg stays.
            if backend:
                pyplot.switch_backend(backend)


def _number_of(view: View) -> Callable[[float, Any], str]:
    """Names of places on an axis of trials, which optuna counts from 0."""

    def name(place: float, _: Any) -> str:
        inside = place == int(place) and 0 <= place < len(view.numbers)
        return str(view.numbers[int(place)]) if inside else ""

    return name


def _plain_numbers(axis: "Axis", view: View, key: str) -> None:
    """Ticks at the values of a short list; on logarithmic axes numbers such as 0.002, and few
    enough to stand side by side."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter

    values = view.space.sweep.space[key].values
    if key not in view.numeric_keys or not (values or axis.get_scale() == "log"):
        return
    low, high = axis.get_view_interval()
    if 0 < len(values) <= _MOST_TICKS:
        axis.set_major_locator(FixedLocator(values))
    elif axis.get_scale() == "log":
        steps = (1, 2, 5) if high < 30 * low else (1, 3) if high < 3000 * low else (1,)
        axis.set_major_locator(LogLocator(subs=steps))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    axis.set_minor_formatter(NullFormatter())


def _scale(view: View) -> str:
    """Colours of scores: the better, the darker."""
    return f"{_SCALE}_r" if view.space.sweep.direction == "max" else _SCALE


def _title(axes: "Axes", view: View, words: str) -> None:
    axes.set_title(_words(view, words), loc="left", size="large")
    for place in ("center", "right"):
        axes.set_title("", loc=place)


def _words(view: View, words: str) -> str:
    return f"{view.space.sweep.name}: {words}"


def _figure(axes: Any) -> "Figure":
    figure: Figure = axes.get_figure()
    return figure
