"""Sections of a sweep's report on how it was made: cost, failures, how to repeat it."""

from collections import defaultdict

import yaml
from markupsafe import Markup

from knife.report.page import Section, empty, facts, listing, paragraphs, table
from knife.report.run_data import journal, stage_seconds, trained
from knife.report.run_training import duration, made_by, moment, noted, starts
from knife.tune.report.data import SweepData
from knife.tune.report.plots import Plots
from knife.tune.report.results import pictures
from knife.tune.report.table import score_cell
from knife.tune.search.final import RECIPE
from knife.tune.search.labels import metric_label
from knife.tune.search.settings import Scheduler
from knife.tune.search.trials import LATER_STEPS, TrialRow, first_line


def cost(sweep: SweepData, drawn: Plots) -> Section:
    """Show the time of the trials by state and of the other phases, and what sharing saved."""
    by_state: dict[str, list[float]] = defaultdict(list)
    for row in sweep.rows:
        by_state[f"trials, {row.state}"].append(row.seconds)
    phases = {LATER_STEPS[name]: [row.seconds for row in sweep.phase(name)] for name in LATER_STEPS}
    spent = by_state | {words: seconds for words, seconds in phases.items() if seconds}
    if not spent:
        return Section("Cost and sharing", empty("No trial has ended yet.") + _sharing(sweep))
    rows = [
        (words, len(seconds), duration(sum(seconds)), duration(sum(seconds) / len(seconds)))
        for words, seconds in spent.items()
    ]
    everything = sum(map(sum, spent.values()))
    body = paragraphs(
        f"All trainings took {duration(everything)} in total, counting parallel ones separately."
    )
    body += table("Time by phase", ("what", "number", "total", "each"), rows, [1, 2, 3])
    return Section("Cost and sharing", body + _sharing(sweep) + pictures(drawn, ["pareto"]))


def _sharing(sweep: SweepData) -> Markup:
    """List teachers and their states, and how many trials share each."""
    sharing: dict[tuple[str, str], list[int]] = defaultdict(list)
    for number, trial in sweep.trials.items():
        for kind, key in trial["shares"]:
            sharing[kind, key].append(number)
    if not sharing:
        return empty("No trial is known to have shared a teacher or its states.")
    rows, saved, unknown = [], 0.0, 0
    for (kind, key), numbers in sharing.items():
        seconds = stage_seconds(journal(sweep.store, kind, key), trained(sweep.store, kind, key))
        unknown += not seconds
        again = (len(numbers) - 1) * seconds
        saved += again
        took = duration(seconds) if seconds else "unknown"
        rows.append((f"{kind} {key}", took, len(numbers), duration(again) if seconds else ""))
    heads = ("made once", "took", "trials that share it", "saved")
    words = [f"Making teachers and states separately for each trial would have taken "
             f"{duration(saved)} more."]  # fmt: skip
    if unknown:
        words.append(
            f"The store no longer has the times of {unknown} of them, which are not counted."
        )
    return paragraphs(*words) + table("Shared between trials", heads, rows, [1, 2, 3])


def ended_early(sweep: SweepData) -> Section:
    """List the trials that were pruned, stopped or failed, and why."""
    title, space = "Pruned and failed trials", sweep.space
    rows = [row for row in sweep.rows if row.state != "finished"]
    if not rows:
        return Section(title, empty("Every trial that has ended has finished."))
    cells = [
        (
            row.number,
            row.state,
            max(row.by_epoch, default=""),
            score_cell(space, row),
            _why(row, space.sweep.scheduler),
        )
        for row in rows
    ]
    heads = ("trial", "state", "last epoch", metric_label(space), "why")
    body = table("Trials without a result", heads, cells, [0, 2, 3])
    for row in rows:
        if row.error and len(row.error.splitlines()) > 1:
            body += listing(f"error of trial {row.number}", row.error)
    return Section(title, body)


def _why(row: TrialRow, scheduler: Scheduler) -> str:
    if row.state == "failed":
        return first_line(row.error)
    if row.state == "stopped":
        return "the budget was used up"
    if scheduler.name == "asha":
        return f"not among the best 1/{scheduler.reduction} at this epoch (asha)"
    return "below the median of the others at this epoch"


def failures(sweep: SweepData) -> Section:
    """List every start of the command, the trials that restarted, and what trainings noted."""
    title, body = "Failures and restarts", starts(sweep.about["starts"])
    rows = []
    for number, trial in sorted(sweep.trials.items()):
        for when in trial["starts"][1:]:
            rows.append((moment(when), f"trial {number} restarted"))
    for (kind, key), label in _trainings(sweep).items():
        rows += noted(sweep.store, kind, key, label)
    if rows:
        heads = ("when", "what")
        return Section(title, body + table("Restarts and notes of trainings", heads, rows))
    words = "No trial restarted, no training resumed from a checkpoint, and nothing was "
    return Section(title, body + paragraphs(f"{words}damaged."))


def _trainings(sweep: SweepData) -> dict[tuple[str, str], str]:
    """Return labels for teachers, states and students, by kind and key, each once."""
    found: dict[tuple[str, str], str] = {}
    for trial in sweep.trials.values():
        found |= {(kind, key): f"{kind} {key}" for kind, key in trial["shares"]}
    phases = {"trial": sweep.rows} | {
        words: sweep.phase(name) for name, words in LATER_STEPS.items()
    }
    for words, rows in phases.items():
        for row in rows:
            for seed, key in row.students.items():
                found.setdefault(("student", key), f"{words} {row.number}, seed {seed}")
    return found


def again(sweep: SweepData) -> Section:
    """Show the command, the sweep file, its base, and the versions."""
    settings = sweep.space.sweep
    name = f"{settings.name}.yaml"
    text = yaml.safe_dump(
        settings.model_dump(mode="json", exclude_defaults=True), sort_keys=False, allow_unicode=True
    )
    body = paragraphs(f"The settings below, saved as {name}, give the same sweep:")
    body += Markup("<pre>knife tune {}</pre>").format(name)
    body += facts([*made_by(sweep.about), ("store", sweep.store.address)])
    base = yaml.safe_dump(sweep.space.base, sort_keys=False, allow_unicode=True)
    body += listing(name, text) + listing(f"its base, {settings.base}", base)
    if (sweep.folder / RECIPE).is_file():
        body += listing(f"the winner, {RECIPE}", (sweep.folder / RECIPE).read_text())
    return Section("How to reproduce it", body)
