"""The report of a run: one HTML file, made from the store alone."""

from pathlib import Path

from knife.files import replacing
from knife.report import run_results, run_training
from knife.report.page import page
from knife.report.run_data import RunData
from knife.store import Store

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


def write_run_report(folder: Path, store: Store) -> Path:
    """Write the report into the run's folder; it is there whole or not at all."""
    return write_page(folder / NAME, run_report(folder, store))


def write_page(path: Path, text: str) -> Path:
    """Write a page; it is there whole or not at all."""
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    return path
