"""The report of a sweep: one HTML file, made from the store alone."""

from pathlib import Path

from knife.report.page import page
from knife.report.slots import slots
from knife.store.store import Store
from knife.tune.report import results as report_results
from knife.tune.report import work as report_work
from knife.tune.report.data import SweepData
from knife.tune.report.plots import plots


def sweep_report(folder: Path, store: Store) -> str:
    """Make the report of the sweep in a folder `STORE/sweeps/NAME`, finished or in progress.

    Raises:
        UserError: the settings are missing, or are those of another version.
    """
    return report_of(SweepData.read(folder, store))


def report_of(sweep: SweepData) -> str:
    """Make the report of a sweep that has been read."""
    drawn = plots(sweep.space, sweep.rows)
    sections = [
        report_results.final(sweep),
        report_results.trials(sweep),
        report_results.history(drawn),
        *report_results.curves(sweep, drawn),
        report_results.keys(drawn),
        report_work.cost(sweep, drawn),
        slots(sweep.folder),
        report_work.ended_early(sweep),
        report_work.failures(sweep),
        report_work.again(sweep),
    ]
    return page(f"Sweep {sweep.space.sweep.name}", report_results.lead(sweep), sections)
