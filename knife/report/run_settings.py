"""The section of a run's report on what was decided before it, on dev: each method's own settings,
and whether its teachers were good enough."""

from typing import Any

from markupsafe import Markup

from knife.config.overrides import describe
from knife.report.page import Section, paragraphs, table
from knife.report.run_data import RunData
from knife.report.table import percent


def settings(run: RunData) -> Section | None:
    """Return the section; None if nothing was to be decided."""
    choices, gates = (run.record.get(name, []) for name in ("choices", "gates"))
    if not choices and not gates:
        return None
    body = Markup()
    if gates:
        body += table(
            "Teachers at their gate, with rationales",
            ("teacher", "epochs", "right on dev (%)", "wanted (%)", "students learn from it"),
            [_teacher_row(gate, *each) for gate in gates for each in gate["tries"]],
            (1, 2, 3),
        )
    if choices:
        body += table(
            "Settings of each method, by trials on dev",
            ("method", "setting", "dev accuracy (%)", "of each trial (%)", "seeds", "chosen"),
            [_setting_row(choice, each) for choice in choices for each in choice["results"]],
            [2],
        )
        body += paragraphs(
            "Every method that has several settings got as many trials as the one with the most "
            "settings, or more. No trial looked at the test split."
        )
    return Section("Decided before the run", body)


def _teacher_row(gate: dict[str, Any], epochs: int, right: float) -> tuple[str, ...]:
    kept = "yes" if epochs == gate["kept"] else "no"
    return gate["teacher"], str(epochs), percent(right), percent(gate["right"]), kept


def _setting_row(choice: dict[str, Any], result: dict[str, Any]) -> tuple[str, ...]:
    return (
        choice["method"],
        describe(result["values"]),
        "" if result["accuracy"] is None else percent(result["accuracy"]),
        ", ".join("failed" if each is None else percent(each) for each in result["accuracies"]),
        ", ".join(map(str, choice["seeds"])),
        "yes" if result["values"] == choice["chosen"] else "",
    )
