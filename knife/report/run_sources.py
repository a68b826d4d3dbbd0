"""The section of a run's report on what rationales of each source were worth."""

from statistics import fmean
from typing import Any

from markupsafe import Markup

from knife.data.written import words_on
from knife.report import figures
from knife.report.page import Section, empty, facts, paragraphs, table
from knife.report.run_data import RunData
from knife.report.run_results import compared_cells
from knife.report.run_training import NO_RECORD
from knife.stats.verdict import MethodVerdict

# Methods of the same colour differ in these.
_MARKS = ("o", "s", "^", "D")


def sources(run: RunData) -> Section:
    """Return the section on where rationales come from, and the gain of each method by that.

    RQ is of dev: the accuracy of the method's teacher with its rationales minus that of the
    baseline's students without; unknown if dev has none.
    """
    title = "Gain by source of rationales"
    if not run.stages:
        return Section(title, empty(NO_RECORD))
    written = run.record.get("written", {})
    learnt = _learnt(run)
    body = Markup()
    for key, record in written.items():
        about = [
            (f"{_name(run, key)}, {split}", words_on(record, counts))
            for split, counts in record["splits"].items()
        ]
        about.append(("prompt", f"{record['prompt']['name']}, digest {record['prompt']['digest']}"))
        body += facts(about)
    if written:
        licence = next(iter(written.values()))["licence"]
        body += paragraphs(f"{licence[0].upper()}{licence[1:]}.")
    if run.verdict is None or len({data for data, _ in learnt.values()}) < 2:
        same = "All methods that learn from a teacher learn from the same rationales."
        return Section(title, body + empty(same))
    without = [
        accuracy
        for member in run.members
        if member["method"] == run.verdict.baseline
        and (accuracy := _dev_accuracy(run, "student", member["student"])) is not None
    ]
    points: list[tuple[str, float, MethodVerdict]] = []
    rows, partly = [], False
    for method in run.verdict.methods:
        if method.method not in learnt:
            continue
        data, teacher = learnt[method.method]
        train, dev = (_split(run, data, split) for split in ("train", "dev"))
        right = _dev_accuracy(run, "teacher", teacher)
        rq = None
        if right is not None and without and dev["rationales"]:
            partly = partly or dev["rationales"] < dev["examples"]
            rq = 100 * (right - fmean(without))
            points.append((method.method, rq, method))
        keep = written[data]["settings"]["keep"] if data in written else ""
        rows.append(
            (
                method.method,
                _name(run, data),
                keep,
                *(f"{split['rationales']:,} of {split['examples']:,}" for split in (train, dev)),
                "unknown" if rq is None else f"{rq:+.1f}",
                *compared_cells(method)[:3],
            )
        )
    heads = (
        "method", "rationales", "kept", "train", "dev", "RQ on dev (points)",
        f"to {run.verdict.baseline} (points)", "95 % interval", "p (Holm)",
    )  # fmt: skip
    body += table("Methods by the rationales of their teacher", heads, rows, range(3, 9))
    if partly:
        body += paragraphs(
            "RQ takes the teacher's accuracy on the dev examples that have a rationale, and the "
            "baseline's on all. Where a filter has left rationales out, those that are left may be "
            "of easier questions, and RQ is too high."
        )
    return Section(title, body + _figure(points))


def _learnt(run: RunData) -> dict[str, tuple[str, str]]:
    """Return, for each method whose students learn from a teacher, the keys of its data and of the
    teacher."""
    by_key = {stage["key"]: stage for stage in run.stages}
    found = {}
    for member in run.members:
        seen, left = set[str](), [member["student"]]
        while left:
            key = left.pop()
            stage = by_key.get(key)
            if stage is None or key in seen:
                continue
            seen.add(key)
            if stage["kind"] == "teacher":
                found[member["method"]] = (member["data"], key)
            left += stage["reads"]
    return found


def _dev_accuracy(run: RunData, kind: str, key: str) -> float | None:
    return run.trained(kind, key).get("dev_accuracy")


def _split(run: RunData, data: str, split: str) -> dict[str, Any]:
    found: dict[str, Any] = next(s for s in run.record["data"][data] if s["split"] == split)
    return found


def _name(run: RunData, data: str) -> str:
    return str(_split(run, data, "train")["name"])


def _figure(points: list[tuple[str, float, MethodVerdict]]) -> Markup:
    """Draw gains against RQ."""
    drawn = [(name, rq, m.difference) for name, rq, m in points if m.difference]
    if len(drawn) < 2:
        return Markup()
    figure, (axes,) = figures.panels(1, 1, 4.6, 2.8)
    for index, (name, rq, found) in enumerate(drawn):
        colour = figures.COLOURS[index % len(figures.COLOURS)]
        if found.low is not None and found.high is not None:
            axes.plot([rq, rq], [found.low, found.high], color=colour, linewidth=2)
        mark = _MARKS[index // len(figures.COLOURS) % len(_MARKS)]
        axes.plot([rq], [found.points], mark, color=colour, markersize=7, label=name)
    axes.axhline(0, color=figures.INK, linewidth=0.8)
    axes.set_xlabel("RQ on dev (points)")
    axes.set_ylabel("gain (points)")
    figure.legend(loc="outside right upper", frameon=False)
    said = "; ".join(f"{name}: RQ {rq:+.1f}, gain {d.points:+.1f}" for name, rq, d in drawn)
    return figures.inline(
        figure,
        "sources",
        f"Gain against RQ. {said}",
        "Gain over the baseline on test, with its 95 % interval, against RQ on dev.",
    )
