"""The report in a real browser: no error, and nothing wider than the window."""

from pathlib import Path

import pytest
from browser import NEEDED, assert_all_is_seen
from command_fixtures import FinishedRun

from knife.report.run_page import NAME


@NEEDED
@pytest.mark.parametrize("width", [1280, 400])
def test_nothing_is_cut_and_nothing_goes_wrong(
    finished_run: FinishedRun, tmp_path: Path, width: int
) -> None:
    (report,) = (finished_run.store / "runs").glob(f"*/{NAME}")
    assert_all_is_seen(report.read_text(), tmp_path, width)
