"""Sections of a run's report on how it was made: curves, cost, failures, how to reproduce it."""

import time
from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean, median
from typing import Any

import yaml
from markupsafe import Markup

from knife.report import figures, run_data
from knife.report.page import Section, empty, facts, listing, paragraphs, table
from knife.report.run_data import Row, RunData, stage_seconds
from knife.store.store import Store
from knife.train.journal import Row as JournalRow

NO_RECORD = (
    "This run was made by a version of knife that kept no record of its stages; run the same "
    "command again to add one, without retraining."
)
_ALIGNMENT = "input_alignment"
# More panels than this are not worth reading.
_MOST_PANELS = 15

# Points (epoch, value) of a curve.
Curve = list[tuple[float, float]]


def curves(run: RunData) -> Section:
    """Return the section of loss and accuracy by epoch, a panel for the teacher and each method."""
    title = "Learning curves"
    trainings = _trainings(run)
    if not trainings:
        nothing = "The journals of this run's trainings are no longer in the store."
        nothing = nothing if run.finished else "No training has started yet."
        return Section(title, empty(nothing if run.stages else NO_RECORD))
    names = list(trainings)[:_MOST_PANELS]
    body = Markup()
    if len(trainings) > len(names):
        body += paragraphs(f"The first {len(names)} of {len(trainings)} are shown.")
    for name, label, metrics in (
        ("dev-accuracy", "dev accuracy (%)", {"dev_accuracy": ("-", 100.0)}),
        ("loss", "task loss (nats)", {"dev_loss": ("-", 1.0), "task_loss": ("--", 1.0)}),
    ):
        figure, axes = figures.panels(len(names), 3, 2.5, 1.9, sharey=True)
        for panel, training in zip(axes, names, strict=True):
            for index, (metric, (dash, scale)) in enumerate(metrics.items()):
                for journal in trainings[training]:
                    points = _curve(journal, metric)
                    panel.plot(
                        [epoch for epoch, _ in points],
                        [scale * value for _, value in points],
                        dash,
                        color=figures.COLOURS[index],
                        linewidth=1.2,
                        marker="o" if dash == "-" else None,
                        markersize=3,
                    )
            panel.set_title(training)
        figures.by_epoch(figure, axes, label)
        ends = "; ".join(_ends(n, trainings[n], metrics) for n in names)
        dashes = "; solid: dev, dashed: training" if len(metrics) > 1 else ""
        caption = f"A line for each seed{dashes}."
        body += figures.inline(figure, name, f"{label} by epoch. At the end: {ends}", caption)
    return Section(title, body)


def _trainings(run: RunData) -> dict[str, list[list[JournalRow]]]:
    """Return the journals of teacher and students by label or method, one per seed."""
    found: dict[str, list[list[JournalRow]]] = defaultdict(list)
    for stage in run.stages:
        if stage["kind"] == "teacher" and (journal := run.journal("teacher", stage["key"])):
            found[stage["label"]].append(journal)
    for member in run.members:
        journal = run.journal("student", member["student"])
        # A student that is only prompted is not trained and has no curve.
        if _curve(journal, "task_loss"):
            found[member["method"]].append(journal)
    return dict(found)


def _curve(journal: Sequence[JournalRow], metric: str) -> Curve:
    """Return a metric by epoch; one measured every few steps is averaged over each epoch."""
    by_epoch: dict[float, list[float]] = defaultdict(list)
    for row in journal:
        if metric in row["metrics"] and "epoch" in row:
            # Steps within an epoch count towards its end.
            by_epoch[-(-row["epoch"] // 1)].append(row["metrics"][metric])
    return _means(by_epoch)


def _ends(name: str, journals: Sequence[Sequence[JournalRow]], metrics: dict[str, Any]) -> str:
    said = []
    for metric, (_, scale) in metrics.items():
        ends = [curve[-1][1] for journal in journals if (curve := _curve(journal, metric))]
        said += [f"{metric} {scale * fmean(ends):.3g}"] if ends else []
    return f"{name}: {', '.join(said)}"


def alignment(run: RunData) -> Section:
    """Return the section on the distance of students' to teacher's states, by layer and epoch."""
    title = "Alignment of states"
    found: dict[str, list[list[JournalRow]]] = defaultdict(list)
    for member in run.members:
        journal = run.journal("student", member["student"])
        if _curve(journal, _ALIGNMENT):
            found[member["method"]].append(journal)
    if not found:
        nothing = "The store has no student of this run that is aligned on its input states."
        return Section(title, empty(nothing if run.stages else NO_RECORD))
    figure, axes = figures.panels(len(found), 3, 2.7, 2.1)
    said = []
    for panel, (method, journals) in zip(axes, found.items(), strict=True):
        names = sorted(
            {n for row in journals[0] for n in row["metrics"] if n.startswith(_ALIGNMENT)}
        )
        # If there are several layers, each has a line; the mean alone would hide them.
        layers = [name for name in names if name != _ALIGNMENT] or [_ALIGNMENT]
        for index, name in enumerate(layers):
            by_epoch: dict[float, list[float]] = defaultdict(list)
            for epoch, value in (point for j in journals for point in _curve(j, name)):
                by_epoch[epoch].append(value)
            means = _means(by_epoch)
            panel.plot(
                [epoch for epoch, _ in means],
                [value for _, value in means],
                figures.DASHES[index // len(figures.COLOURS) % len(figures.DASHES)],
                color=figures.COLOURS[index % len(figures.COLOURS)],
                label=name.removeprefix(_ALIGNMENT).strip("_").replace("_", " ")
                or "aligned layers",
            )
            said.append(f"{method} {name} from {means[0][1]:.3g} to {means[-1][1]:.3g}")
        panel.set_title(method)
        panel.set_ylim(bottom=0)
        if len(layers) > 1:
            panel.legend(fontsize=7)
    figures.by_epoch(figure, axes, "distance")
    distance = run.config["align"]["input"]["distance"]
    caption = f"Distance ({distance}, before its weight) to the teacher's states, mean over seeds."
    alt = "Distance of states by epoch: " + "; ".join(said)
    return Section(title, figures.inline(figure, "alignment", alt, caption))


def _means(by_epoch: dict[float, list[float]]) -> Curve:
    return [(epoch, fmean(values)) for epoch, values in sorted(by_epoch.items())]


def cost(run: RunData) -> Section:
    """Return the section on each stage's time, speed and memory, and what sharing stages saved."""
    title = "Cost"
    if not run.stages:
        return Section(title, empty(NO_RECORD))
    readers: dict[str, int] = defaultdict(int)
    for stage in run.stages:
        for key in stage["reads"]:
            readers[key] += 1
    rows, seconds = [], {}
    for stage in run.stages:
        if stage["kind"] == "evaluate":
            continue
        kind, key = stage["kind"], stage["key"]
        journal, trained = run.journal(kind, key), run.trained(kind, key)
        seconds[key] = stage_seconds(journal, trained)
        memory = trained.get("gpu_memory_mib") or trained.get("memory_mib")
        rows.append(
            (
                stage["label"],
                _state(run, stage, bool(journal)),
                f"{seconds[key]:.1f}" if seconds[key] else "",
                _speed(journal, "examples_per_second"),
                _speed(journal, "tokens_per_second"),
                f"{memory:.0f}" if memory else "",
                readers[key] or "",
            )
        )
    heads = (
        "stage",
        "in the last start",
        "seconds",
        "examples/s",
        "tokens/s",
        "memory (MiB)",
        "stages that read it",
    )
    found = table("Stages without evaluations", heads, rows, [2, 3, 4, 5, 6])
    words = [f"Trainings and states took {duration(sum(seconds.values()))} together."]
    taught = {s["key"]: _students(run, s) for s in run.stages if s["kind"] in ("teacher", "states")}
    shared = sum(max(0, students - 1) * seconds[key] for key, students in taught.items())
    if shared:
        words.append(
            "Retraining the teacher for every student that learns from it would have taken "
            f"{duration(shared)} more."
        )
    return Section(title, paragraphs(*words) + found)


def _speed(journal: Sequence[JournalRow], name: str) -> str:
    """Return the median of a rate over a training's journal rows."""
    found = [row["metrics"][name] for row in journal if name in row["metrics"]]
    return f"{median(found):.0f}" if found else ""


def _state(run: RunData, stage: Row, begun: bool) -> str:
    if not run.store.has(stage["kind"], stage["key"]):
        return "begun" if begun else "missing"
    return "made" if stage["key"] in run.record["starts"][-1]["made"] else "reused"


def _students(run: RunData, stage: Row) -> int:
    """Return how many students learn from a teacher or from its states."""
    reads = {s["key"]: s["reads"] for s in run.stages}

    def learns(key: str) -> bool:
        return any(read == stage["key"] or learns(read) for read in reads.get(key, []))

    return sum(s["kind"] == "student" and learns(s["key"]) for s in run.stages)


def duration(seconds: float) -> str:
    """Return a duration in words."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def failures(run: RunData) -> Section:
    """Return the section on every start of the command, how it ended, and notes of stages."""
    title = "Failures and restarts"
    if not run.stages:
        return Section(title, empty(NO_RECORD))
    body = starts(run.record["starts"], "stages to make")
    notes = []
    for stage in run.stages:
        notes += noted(run.store, stage["kind"], stage["key"], stage["label"])
    if notes:
        body += table("Notes of stages", ("when", "what"), notes)
    else:
        body += paragraphs("No stage resumed from a checkpoint, and nothing was damaged.")
    return Section(title, body)


def noted(store: Store, kind: str, key: str, label: str) -> list[tuple[str, str]]:
    """Return when and what a stage noted: the checkpoints that it resumed from, and unusable
    ones."""
    resumed = run_data.trained(store, kind, key).get("resumed", [])
    found = [("", f"{label}: resumed from the checkpoint of step {step}") for step in resumed]
    for row in run_data.journal(store, kind, key):
        if "note" in row:
            found.append((moment(row["time"]), f"{label}, step {row['step']}: {row['note']}"))
    return found


def starts(found: Sequence[Row], made: str = "") -> Markup:
    """Return a table of starts and how they ended, with the number of things to make under the
    heading `made`, if given."""
    rows = []
    for start in found:
        # A start that was killed outright records no end.
        ended = "running, or killed" if start is found[-1] else "killed"
        row = [moment(start["time"]), start["status"] if start["ended"] else ended]
        row += [duration(start["ended"] - start["time"]) if start["ended"] else ""]
        rows.append([*row, len(start["made"])] if made else row)
    heads = ["start", "ended", "after", *([made] if made else [])]
    return table("Starts of the command", heads, rows, [2, 3])


def last_start(record: Row) -> list[str]:
    """Return how the last start of an unfinished run or sweep ended; nothing if it may still be
    running."""
    starts = record.get("starts", [])
    if not starts or not starts[-1]["ended"]:
        return []
    return [f"The last start {starts[-1]['status']}; run the same command again to resume."]


def moment(seconds: float) -> str:
    """Format a Unix time."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def again(run: RunData) -> Section:
    """Return the section on how to reproduce the run: command, config and versions."""
    title = "How to reproduce it"
    config = yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True)
    command = f"knife run {run.config['name']}.yaml"
    words = [f"The config below, saved as {run.config['name']}.yaml, gives the same run:"]
    body = paragraphs(*words) + Markup("<pre>{}</pre>").format(command)
    if run.record:
        body += facts([*made_by(run.record), ("store", run.store.address)])
    return Section(title, body + listing("config", config))


def made_by(record: Row) -> list[tuple[str, str]]:
    """Return the command and everything else that a result may depend on."""
    versions = ", ".join(f"{name} {v}" for name, v in record["versions"].items())
    git = record["git"].get("mlflow.source.git.commit", "unknown")
    changed = " (with changes)" if record["git"].get("knife.git.changed") == "true" else ""
    return [
        ("started as", record["starts"][-1]["command"]),
        ("fingerprint", record["key"]),
        ("git revision", git + changed),
        ("versions", versions),
    ]
