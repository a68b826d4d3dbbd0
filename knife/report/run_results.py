"""Sections of a run's report on its results: methods, differences, answers, rationales."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from markupsafe import Markup

from knife.core.words import counted
from knife.data.example import Example
from knife.report import figures
from knife.report.page import Section, empty, facts, paragraphs, table
from knife.report.rationale_table import COLUMNS, written_rows
from knife.report.run_data import RunData
from knife.report.run_training import NO_RECORD, last_start
from knife.report.table import interval, p_value, percent, sentence
from knife.stats.rationale_scores import THIRDS
from knife.stats.verdict import MethodVerdict, Verdict
from knife.stats.written_scores import WrittenScores

# Answers shown for each side.
_SHOWN = 5


def lead(run: RunData) -> list[str]:
    """Return the verdict in a sentence, and the progress of an unfinished run."""
    going = [] if run.finished else [f"So far: {_progress(run)}.", *last_start(run.record)]
    return [*going, *([sentence(run.verdict)] if run.verdict else [])]


def _progress(run: RunData) -> str:
    if not run.stages:
        return "the run has no verdict yet"
    done = sum(run.store.has(stage["kind"], stage["key"]) for stage in run.stages)
    return f"{done} of {counted(len(run.stages), 'stage')} done"


def methods(run: RunData) -> Section:
    """Return the section on every method's accuracy and its difference to the baseline."""
    found = run.verdict
    body = comparison(found) if found else empty("No student has been evaluated yet.")
    return Section("Methods", body)


def comparison(verdict: Verdict) -> Markup:
    """Return a verdict as a table with its notes, and as a figure."""
    rows = [
        (
            method.method,
            method.seeds,
            percent(method.accuracy),
            interval(method) or "no spread",
            *compared_cells(method),
        )
        for method in verdict.methods
    ]
    if verdict.ceiling:
        for name, share in (
            ("teacher, with rationales", verdict.ceiling.with_rationale),
            ("teacher, without", verdict.ceiling.without_rationale),
        ):
            rows += [(name, 1, percent(share), *[""] * 6)] if share is not None else []
    heads = (
        "method", "seeds", "accuracy (%)", "95 % interval", f"to {verdict.baseline} (points)",
        "95 % interval", "p (Holm)", "gained", "lost",
    )  # fmt: skip
    examples = verdict.methods[0].examples
    found = table(f"Accuracy on {examples} test examples", heads, rows, range(1, 9))
    return found + paragraphs(*verdict.notes) + _accuracy_figure(verdict)


def compared_cells(method: MethodVerdict) -> list[str]:
    """Return a method's cells: points to the baseline, interval, p, and answers gained and lost;
    empty where there is nothing to compare."""
    found = method.difference
    if found is None:
        return [""] * 5
    span = said = ""
    if (p := found.p_corrected) is not None:
        span = f"{found.low:+.1f} to {found.high:+.1f}"
        said = p_value(p)
    return [f"{found.points:+.1f}", span, said, str(found.gained), str(found.lost)]


def _accuracy_figure(verdict: Verdict) -> Markup:
    """Draw the methods' accuracies, one above the other, with their intervals."""
    order = list(reversed(verdict.methods))
    figure, (axes,) = figures.panels(1, 1, 7.2, 0.9 + 0.3 * len(order))
    for index, method in enumerate(order):
        mean = 100 * method.accuracy
        if method.low is not None and method.high is not None:
            ends = [100 * method.low, 100 * method.high]
            axes.plot(ends, [index, index], color=figures.COLOURS[0], linewidth=2)
        mark = "D" if method.method == verdict.baseline else "o"
        axes.plot([mean], [index], mark, color=figures.COLOURS[0], markersize=7)
    lines = []
    if verdict.ceiling:
        for dash, words, share in (
            ("--", "teacher with rationales", verdict.ceiling.with_rationale),
            (":", "teacher without", verdict.ceiling.without_rationale),
        ):
            if share is not None:
                lines.append(f"{words} {percent(share)} %")
                axes.axvline(100 * share, color=figures.COLOURS[1], linestyle=dash, label=lines[-1])
    axes.set_yticks(range(len(order)), [method.method for method in order])
    axes.set_ylim(-0.5, len(order) - 0.5)
    axes.set_xlabel("test accuracy (%)")
    if lines:
        figure.legend(loc="outside lower right", ncols=2, frameon=False)
    said = "; ".join(f"{m.method} {percent(m.accuracy)} %" for m in verdict.methods)
    return figures.inline(
        figure,
        "accuracy",
        f"Test accuracy by method: {said}" + "".join(f"; {line}" for line in lines),
        f"Mean over seeds and 95 % interval; the diamond is {verdict.baseline}.",
    )


def answers(run: RunData) -> Section:
    """Return the section of questions that only a method or only the baseline got right, by
    majority."""
    title, verdict = "Answers gained and lost", run.verdict
    compared = [m for m in verdict.methods if m.difference] if verdict else []
    if verdict is None or not compared:
        return Section(title, empty("No method was compared with a baseline."))
    best = next((m for m in compared if m.method == "knife"), compared[0])
    difference = best.difference
    assert difference
    examples = run.test_examples()
    if not examples:
        nothing = "The test examples of this run are no longer in the store, or damaged."
        return Section(title, empty(nothing if run.stages else NO_RECORD))
    said = [_majority(run, name) for name in (best.method, verdict.baseline)]
    names = (best.method, verdict.baseline)
    parts = [
        paragraphs(
            f"Of all {best.examples * difference.seeds} answers of "
            f"{counted(difference.seeds, 'seed')}, "
            f"{best.method} does better than {verdict.baseline} on {difference.gained} and worse "
            f"on {difference.lost}. Below are questions that most seeds gain or lose."
        )
    ]
    for words, ids in (("gained", difference.gained_ids), ("lost", difference.lost_ids)):
        shown = [id_ for id_ in ids if id_ in examples][:_SHOWN]
        parts.append(Markup("<h3>{} by {}: {}</h3>").format(
            words.capitalize(), best.method, counted(len(ids), "question")
        ))  # fmt: skip
        parts += [_answer(examples[id_], names, said) for id_ in shown]
        if not shown:
            parts.append(empty("None."))
    return Section(title, Markup("\n").join(parts))


def _majority(run: RunData, method: str) -> dict[str, list[Any]]:
    """Return the answers most frequent among a method's seeds, by example id: several if they are
    equally frequent or choices are tied."""
    votes: dict[str, Counter[Any]] = {}
    for member in run.members:
        if member["method"] == method:
            for row in run.predictions(member["evaluate"]):
                said = [row["text"]] if "text" in row else row.get("tied", [row["choice"]])
                votes.setdefault(row["id"], Counter()).update(dict.fromkeys(said, 1 / len(said)))
    return {
        id_: [said for said, count in counter.items() if count == max(counter.values())]
        for id_, counter in votes.items()
    }


def _answer(example: Example, names: tuple[str, str], said: list[dict[str, list[Any]]]) -> Markup:
    choices = [] if example.open else example.choices

    def words(answers: list[Any]) -> str:
        each = [choices[answer] if isinstance(answer, int) else str(answer) for answer in answers]
        return " or ".join(each)

    known = [("answer", example.choices[example.answer])]
    known += [
        (name, words(own[example.id]))
        for name, own in zip(names, said, strict=True)
        if example.id in own
    ]
    known += [("choices", ", ".join(choices))] if choices else []
    known += [("rationale", example.rationale)] if example.rationale else []
    return Markup("<details open><summary>{}</summary>{}</details>").format(
        example.question, facts(known)
    )


def _written(path: Path) -> str:
    """Return a table of the rationales that students wrote, if they were scored."""
    if not path.is_file():
        return ""
    scores = [WrittenScores(**each) for each in json.loads(path.read_text())]
    if not scores:
        return ""
    caption = "Rationales that students wrote at test, in place of the given ones"
    return table(caption, COLUMNS, written_rows(scores), [1, 2, 3]) + paragraphs(
        "RQ: accuracy of the teacher that reads them, minus that of finetune. Consistency: share "
        "of a student's answers that a model of the rationale alone gives as well."
    )


def rationales(run: RunData) -> Section:
    """Return the section on the rationales' quality and how the gain of `knife` relates to it."""
    title, path = "Gain against rationale quality", run.folder / "rationale_scores.json"
    if not path.is_file():
        return Section(
            title, empty("The rationales of this run have not been scored: run knife data score.")
        )
    scores = json.loads(path.read_text())
    rows = [
        ("accuracy of finetune, I to O (%)", percent(scores["without"])),
        ("accuracy of the teacher, I + R to O (%)", percent(scores["explained"])),
        ("accuracy from the rationale alone, R to O (%)", percent(scores["rationale_only"])),
        ("RQ, simulatability (points)", f"{100 * scores['rq']:+.1f}"),
        ("LAS (points)", "none" if scores["las"] is None else f"{100 * scores['las']:+.1f}"),
        ("REV (nats)", f"{scores['rev']:+.3f}"),
    ]
    body = table(
        f"{scores['examples']} test examples with a rationale", ("score", "value"), rows, [1]
    )
    body += paragraphs(*scores["notes"])
    body += _written(run.folder / "written_scores.json")
    if not scores["relations"]:
        body += empty("The gain of knife is unknown: run knife run, then knife data score again.")
        return Section(title, body)
    relations = scores["relations"]
    drawn, axes = figures.panels(len(relations), 3, 2.6, 2.2, sharey=True)
    said = []
    for panel, found in zip(axes, relations, strict=True):
        gains = [100 * gain for gain in found["thirds"]]
        # The full names have no room side by side.
        panel.bar(
            [name.split()[0] for name in THIRDS[: len(gains)]], gains, color=figures.COLOURS[0]
        )
        panel.axhline(0, color=figures.INK, linewidth=0.8)
        panel.set_title(found["score"])
        values = ", ".join(f"{gain:+.1f}" for gain in gains)
        rho = "" if found["rho"] is None else f", rank correlation {found['rho']:+.2f}"
        said.append(f"{found['score']}: {values}{rho}")
    axes[0].set_ylabel("gain of knife (points)")
    drawn.supxlabel("third of the examples by the score", fontsize=9)
    caption = "Gain of knife over finetune by thirds of each score; " + "; ".join(said) + "."
    alt = "Gain of knife by thirds of each score. " + "; ".join(said)
    return Section(title, body + figures.inline(drawn, "rationales", alt, caption))
