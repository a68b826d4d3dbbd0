"""The report of a run: one HTML file, made from the store alone."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from knife.core.atomic import write_text
from knife.core.words import command_line
from knife.report import run_results, run_settings, run_training
from knife.report.page import page
from knife.report.run_data import RunData
from knife.report.run_forecast import forecast
from knife.report.run_probe import probes
from knife.report.run_sources import sources
from knife.report.slots import slots
from knife.store.store import Store

log = logging.getLogger(__name__)

NAME = "report.html"
_SECTIONS = (
    run_results.methods,
    run_settings.settings,
    forecast,
    run_results.answers,
    run_results.rationales,
    probes,
    sources,
    run_training.curves,
    run_training.alignment,
    run_training.cost,
    lambda run: slots(run.folder),
    run_training.failures,
    run_training.again,
)


def run_report(folder: Path, store: Store) -> str:
    """Render the report of the run in a folder `STORE/runs/NAME-KEY`, finished or not."""
    run = RunData.read(folder, store)
    sections = [found for section in _SECTIONS if (found := section(run))]
    return page(f"Run {run.config['name']}", run_results.lead(run), sections)


def write_or_warn(folder: Path, store: Store, made: Callable[[], str]) -> list[Path]:
    """Write a finished run's or sweep's report into its folder; return its path, or [] on failure.

    On failure an earlier page, which does not match the results, is removed.
    """
    path = folder / NAME
    again = command_line("knife", "report", folder.name, "--store", store.address)
    with or_warn("the report", f"; to write it: {again}"):
        write_text(path, made())
        return [path]
    path.unlink(missing_ok=True)
    return []


@contextmanager
def or_warn(what: str, advice: str = "") -> Iterator[None]:
    """Turn any exception inside into a warning: results must not depend on their presentation."""
    try:
        yield
    except Exception as error:
        why = f"{type(error).__name__}: {' '.join(str(error).split())}"
        log.warning("%s could not be written (%s); all results are kept%s", what, why, advice)
