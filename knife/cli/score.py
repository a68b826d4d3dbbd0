"""Scores of rationales, and probes of students that write some: progress on stderr."""

from dataclasses import asdict
from typing import Any

from rich.console import Group
from rich.table import Table

from knife.config.overrides import Overrides
from knife.config.recipe_files import find_config
from knife.config.run import read
from knife.core.exits import say
from knife.pipeline.command import stdout_to_stderr
from knife.pipeline.probe import probe_run
from knife.pipeline.score import score as score_run
from knife.report.probe_table import render as render_probes
from knife.report.rationale_table import render
from knife.terminal.display import display


def scored(config: str, overrides: Overrides | None) -> tuple[dict[str, Any], Group, list[str]]:
    """Score the rationales of a run; returns JSON-ready values, tables, and what a user should
    know.

    Raises:
        UserError: as `knife.pipeline.score.score` does.
    """
    settings = read(find_config(config), overrides)
    with stdout_to_stderr():
        result = score_run(settings, display)
    said = [*(f"note: {note}" for note in result.notes), f"by example: {result.folder}"]
    return result.to_dict(), render(result.scores, result.written), said


def probed(config: str, overrides: Overrides | None) -> tuple[dict[str, Any], Table, list[str]]:
    """Probe the students of a run that write rationales; returns the same.

    Raises:
        UserError: as `knife.pipeline.probe.probe_run` does.
    """
    settings = read(find_config(config), overrides)
    with stdout_to_stderr():
        found, folder = probe_run(settings, lambda method: say(f"probing {method} …"))
    values = {"probes": [asdict(each) for each in found], "folder": str(folder)}
    lines = [line for each in found for line in each.lines()]
    return values, render_probes(found), [*lines, f"kept with the run: {folder}"]
