"""The files that a sweep writes for people: table, study and plots."""

from collections.abc import Sequence
from pathlib import Path

from knife.report.run_page import or_warn
from knife.tune.report.plots import plots, write_pictures
from knife.tune.report.table import write_csv
from knife.tune.search.space import Space
from knife.tune.search.study import export_study
from knife.tune.search.trials import TrialRow


def write_outputs(space: Space, rows: Sequence[TrialRow], folder: Path) -> list[Path]:
    """Write the files into the sweep's folder, and return their paths."""
    table, study = folder / "trials.csv", folder / "study.db"
    write_csv(space, rows, table)
    export_study(space, rows, study)
    pictures = folder / "plots"
    pictures.mkdir(exist_ok=True)
    with or_warn("the pictures of the sweep"):
        return [table, study, *write_pictures(plots(space, rows), pictures).values()]
    return [table, study]
