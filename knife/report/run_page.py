"""The report of a run: one HTML file, made from the store alone."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from knife.core.atomic import replacing
from knife.core.words import command_line
from knife.report import run_results, run_training
from knife.report.page import page
from knife.report.run_data import RunData
from knife.store.store import Store

log = logging.getLogger(__name__)

NAME = "report.html"
_SECTIONS = (
    run_results.methods,
    run_results.answers,
    run_results.rationales,
    run_training.curves,
    run_training.alignment,
    run_training.cost,
    run_training.faults,
    run_training.again,
)


def run_report(folder: Path, store: Store) -> str:
    """The report of the run in a folder `STORE/runs/NAME-KEY`, of one that goes on as well."""
    run = RunData.read(folder, store)
    sections = [section(run) for section in _SECTIONS]
    return page(f"Run {run.config['name']}", run_results.lead(run), sections)


def write_or_warn(folder: Path, store: Store, made: Callable[[], str]) -> list[Path]:
    """Write the report of a run or a sweep that has ended into its folder; the file, if it could.

    A page of an earlier time, which no longer fits the results, does not outlast a failure.
    """
    path = folder / NAME
    again = command_line("knife", "report", folder.name, "--store", store.address)
    with or_warn("the report", f"; to make it again: {again}"):
        return [write_page(path, made())]
    path.unlink(missing_ok=True)
    return []


@contextmanager
def or_warn(what: str, advice: str = "") -> Iterator[None]:
    """Whatever goes wrong inside is a warning: results do not hang on what shows them."""
    try:
        yield
    except Exception as error:
        why = f"{type(error).__name__}: {' '.join(str(error).split())}"
        log.warning("%s could not be made (%s); all results are there%s", what, why, advice)


def write_page(path: Path, text: str) -> Path:
    """Write a page; it is there whole or not at all."""
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    return path
