"""Sections of a sweep's report on its results: winner, trials, curves, keys that matter."""

from collections.abc import Sequence

from markupsafe import Markup

from knife.config.overrides import describe
from knife.core.words import command_line, counted
from knife.report import figures
from knife.report.page import Section, empty, facts, table
from knife.report.run_results import comparison
from knife.report.run_training import duration, last_start
from knife.report.table import sentence
from knife.tune.report.curves import FRACTION
from knife.tune.report.data import SweepData
from knife.tune.report.measured import Measured
from knife.tune.report.plots import Plots
from knife.tune.report.table import in_order, score_cell
from knife.tune.search.final import tie_note
from knife.tune.search.labels import is_share, label, metric_label, point_label, short_keys
from knife.tune.search.trials import TrialRow

# Rows of trials beyond this are folded.
_SHOWN = 25


def lead(sweep: SweepData) -> list[str]:
    """Name the winner and its result on test, or say how far the sweep is."""
    words, space = [], sweep.space
    if sweep.result is None:
        rest = f"{len(sweep.running)} running"
        if sweep.searched:
            rest = "the search is done, the phases after it are not"
        ended = counted(len(sweep.rows), "trial")
        words = [f"So far: {ended} ended, {rest}.", *last_start(sweep.about)]
    best = sweep.best
    if best is None:
        return [*words, "No trial has finished yet."]
    seeds = f", mean of {len(best.scores)} seeds" if len(best.scores) > 1 else ""
    unit = " %" if is_share(space) else ""
    words.append(
        f"The {'winner' if sweep.result else 'best'} is trial {best.number} of {len(sweep.rows)}: "
        f"{metric_label(space).removesuffix(' (%)')} {score_cell(space, best).strip()}{unit}"
        f"{seeds}, with {describe(best.point)}."
    )
    words += filter(None, [tie_note(space, sweep.rows)])
    return [*words, sentence(sweep.verdict)] if sweep.verdict else words


def final(sweep: SweepData) -> Section:
    """Compare the winner with finetune on test, with seeds that the search did not use."""
    title = "Final comparison"
    if sweep.space.sweep.final is None:
        return Section(title, empty("This sweep has no final comparison on test (final: null)."))
    if sweep.result is None or sweep.verdict is None:
        return Section(title, empty("The winner has not been compared with finetune on test yet."))
    run = sweep.result["final"]
    known = [
        ("the winner as a recipe", "best.yaml, in the sweep's folder"),
        (
            "its own report",
            command_line("knife", "report", f"{run['name']}-{run['key']}", "--store", run["store"]),
        ),
    ]
    known += [
        (f"student of {student['method']}, seed {student['seed']}", student["folder"])
        for student in run["students"]
    ]
    return Section(title, comparison(sweep.verdict) + facts(known))


def trials(sweep: SweepData) -> Section:
    """List every trial, best first, then those without a result."""
    title, space = "Trials", sweep.space
    if not sweep.rows:
        return Section(title, empty("No trial has ended yet."))
    finished, others = in_order(space, sweep.rows)
    names = short_keys(space.sweep.space)
    heads = ["trial", metric_label(space), "seeds", "state", "time", *names.values()]
    tested = any(row.tests for row in sweep.rows)
    heads += ["test accuracy (%)"] if tested else []
    cells = []
    for row in [*finished, *others]:
        values = [label(space.sweep.space[key], row.point[key]) for key in names]
        seeds = len(row.scores) or ""
        found = [row.number, score_cell(space, row), seeds, row.state, duration(row.seconds)]
        found += [*values, *([_on_test(row)] if tested else [])]
        cells.append(found)
    columns = [0, 1, 2, 4]
    body = table("Best first; ± is the sd over seeds", heads, cells[:_SHOWN], columns)
    if cells[_SHOWN:]:
        more = table("The others", heads, cells[_SHOWN:], columns)
        body += Markup("<details><summary>{}</summary>{}</details>").format(
            counted(len(cells) - _SHOWN, "more trial"), more
        )
    return Section(title, body)


def _on_test(row: TrialRow) -> str:
    return f"{100 * sum(row.tests.values()) / len(row.tests):.1f}" if row.tests else ""


def history(drawn: Plots) -> Section:
    """Show scores in trial order."""
    return Section("Optimisation history", pictures(drawn, ["history"]))


def curves(sweep: SweepData, drawn: Plots) -> list[Section]:
    """Show scores by amount of training data or by combination, if the space has either."""
    measured = Measured.of(sweep.space, sweep.rows)
    for name, title, others in (
        ("curves", "Low-resource curves", FRACTION),
        ("combinations", "Combinations", ""),
    ):
        if name in drawn.drawn or name in drawn.left_out:
            body = pictures(drawn, [name])
            if name in drawn.drawn:
                body += _estimates(measured, others)
            return [Section(title, body)]
    return []


def _estimates(measured: Measured, first: str) -> Markup:
    """Tabulate the numbers that the figure shows."""
    keys = measured.discrete(but=first)
    rows = measured.best_by([first, *keys] if first else keys)
    cells = []
    for row in rows:
        found = measured.estimate(row)
        digits = 1 if measured.is_share else 4
        span = "one seed" if len(row.scores) < 2 else "no spread"
        if found.high > found.low:
            span = f"{found.low:.{digits}f} to {found.high:.{digits}f}"
        cells.append(
            [
                *([f"{100 * row.point[first]:g}"] if first else []),
                point_label(measured.space, row.point, keys) or f"trial {row.number}",
                f"{found.mean:.{digits}f}",
                span,
                row.number,
            ]
        )
    heads = ["values", measured.label, "95 % interval", "trial"]
    heads = ["training split (%)", *heads] if first else heads
    caption = f"The best trial of each, {measured.note()}"
    return table(caption, heads, cells, [0, 2, 3, 4] if first else [1, 2, 3])


def keys(drawn: Plots) -> Section:
    """Show which keys of the space matter, and which of their values are good."""
    return Section(
        "Keys that matter", pictures(drawn, ["importance", "contour", "parallel", "slice"])
    )


def pictures(drawn: Plots, names: Sequence[str]) -> Markup:
    """Return the named plots, or why they are left out."""
    parts = []
    for name in names:
        if plot := drawn.drawn.get(name):
            words = plot.words[:1].upper() + plot.words[1:]
            parts.append(figures.inline(plot.figure, name, words, words))
        else:
            parts.append(empty(drawn.left_out[name]))
    return Markup("\n").join(parts)
