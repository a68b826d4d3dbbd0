"""`knife tune`: progress on stderr, the result on stdout, and closing messages."""

from pathlib import Path
from typing import Any

from rich.console import Group

from knife.config.overrides import Overrides, describe
from knife.core.words import command_line
from knife.pipeline.command import stdout_to_stderr
from knife.report.run_page import NAME as REPORT
from knife.report.table import render as verdict_table
from knife.tune.report.table import render
from knife.tune.search.final import RECIPE, tie_note
from knife.tune.search.sweep_file import read_checked_sweep
from knife.tune.search.sweep_plan import SweepPlan, plan_sweep
from knife.tune.search.trials import first_line
from knife.tune.sweep import SweepResult, run_sweep


def sweep_with_display(plan: SweepPlan, *, resume: bool, quiet: bool = False) -> SweepResult:
    """Run a sweep and show its progress unless `quiet`; library output goes to stderr.

    Raises:
        UserError, WorkFailedError: as `run_sweep` does.
    """
    with stdout_to_stderr():
        return run_sweep(plan, resume=resume, quiet=quiet)


def plan_file(path: Path, overrides: Overrides) -> SweepPlan:
    """Return the plan of a sweep file.

    Raises:
        UserError: with every error in the file, or with the reason why no trial could start.
    """
    return plan_sweep(read_checked_sweep(path, overrides))


def rendered(plan: SweepPlan, result: SweepResult) -> Group:
    """Render the trials, with the winner's verdict below them."""
    parts: list[Any] = [render(plan.space, result.rows)]
    if result.verdict:
        parts.append(verdict_table(result.verdict))
    return Group(*parts)


def last_words(plan: SweepPlan, result: SweepResult, *, quiet: bool = False) -> list[str]:
    """Return where the results are, what failed and what to do next; if `quiet`, warnings only."""
    warnings = [f"warning: {line}" for line in result.values["unsent"]]
    failed = [row for row in result.rows if row.state == "failed"]
    warnings += [f"warning: trial {row.number} failed: {first_line(row.error)}" for row in failed]
    ended = sum(row.state != "stopped" for row in result.rows)
    if plan.trials < ended:
        warnings.append(
            f"warning: budget.trials: {plan.trials} are fewer than the {ended} that have already "
            "ended; all of them are kept and counted"
        )
    if quiet:
        return warnings
    if not result.fresh:
        lines = ["the sweep is done: nothing was trained"]
    else:
        lines = [f"note: {describe(point)} is left out: {'; '.join(errors)}"
                 for point, errors in plan.refused]  # fmt: skip
    lines += [f"note: {note}" for note in [tie_note(plan.space, result.rows)] if note]
    lines += warnings
    folder = result.folder
    lines.append(f"trials, study and plots: {folder}")
    if (folder / REPORT).is_file():
        lines.append(f"report: {folder / REPORT}")
    lines.append(f"the best as a recipe: {command_line('knife', 'run', folder / RECIPE)}")
    return [*lines, *result.links]
