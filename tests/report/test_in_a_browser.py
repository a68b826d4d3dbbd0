"""The report in a real browser: no error, and nothing wider than the window."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from command_fixtures import FinishedRun

from knife.report.run_page import NAME

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), ""
)
# Put into the page by the test alone: what is wider than the window, a box that scrolls aside.
MEASURE = """<script>
const wide = [...document.querySelectorAll("body *")].filter(
  e => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest(".wide, pre")
);
document.title = `${innerWidth} ${document.documentElement.scrollWidth} ${wide.length}`;
</script></body>"""


@pytest.mark.skipif(not BROWSER, reason="no Chromium on this machine")
@pytest.mark.parametrize("width", [1280, 500])
def test_nothing_is_cut_and_nothing_goes_wrong(
    finished_run: FinishedRun, tmp_path: Path, width: int
) -> None:
    (report,) = (finished_run.store / "runs").glob(f"*/{NAME}")
    page = tmp_path / "page.html"
    page.write_text(report.read_text().replace("</body>", MEASURE))
    done = subprocess.run(
        [
            BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
            "--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}",
            f"--window-size={width},900", page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "CONSOLE" not in done.stderr
    title = re.search(r"<title>(\d+) (\d+) (\d+)</title>", done.stdout)
    assert title, done.stdout[:500]
    inner, needed, wide = map(int, title.groups())
    assert needed <= inner <= width
    assert wide == 0
