"""The section of a run's report on its forecast, beside what was measured."""

import json

from knife.forecast.forecast import NAME
from knife.report.page import Section, empty, paragraphs, table
from knife.report.run_data import RunData
from knife.report.table import percent


def forecast(run: RunData) -> Section:
    """Return the section on what was forecast of knife, and what it gained."""
    title, path = "Forecast", run.folder / NAME
    if not path.is_file():
        return Section(title, empty("No forecast was made of this run: see knife forecast."))
    found = json.loads(path.read_text())
    expected, of, scores = found["expected"], found["features"], found["scores"]
    gain, interval = "unknown", "unknown"
    if expected:
        gain = f"{expected['gain']:+.1f}"
        interval = f"{expected['low']:+.1f} to {expected['high']:+.1f}"
    rows = [
        ("verdict", found["verdict"]),
        ("expected gain over finetune (points)", gain),
        ("80 % interval", interval),
        ("measured gain (points)", _measured(run)),
        ("median number of training examples that state a fact", f"{of['mentions']:.3g}"),
    ]
    if scores:
        rows += [
            ("teacher on dev, with rationales (%)", percent(scores["with_rationale"])),
            ("teacher on dev, without (%)", percent(scores["without_rationale"])),
            ("finetuned student on dev (%)", percent(scores["finetune"])),
        ]
    body = table("What to expect of knife, said by knife forecast", ("", "value"), rows, [1])
    return Section(title, body + paragraphs(*found["notes"]))


def _measured(run: RunData) -> str:
    methods = {each.method: each for each in run.verdict.methods} if run.verdict else {}
    if "knife" not in methods or "finetune" not in methods:
        return "unknown: needs knife and finetune"
    return f"{100 * (methods['knife'].accuracy - methods['finetune'].accuracy):+.1f}"
