"""A page in a real browser: no error, and nothing wider than the window."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), ""
)
NEEDED = pytest.mark.skipif(not BROWSER, reason="no Chromium on this machine")
# Added to the page only by the test: finds what is wider than the window, except scrolling boxes.
_MEASURE = """<script>
const wide = [...document.querySelectorAll("body *")].filter(
  e => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest(".wide, pre")
);
parent.postMessage(
  `${innerWidth} ${document.documentElement.scrollWidth} ${wide.length}`, "*"
);
</script></body>"""
# Chromium's windows are never narrower than 500 pixels, but a frame in one can be.
_WINDOW = """<!doctype html><title>unmeasured</title>
<script>onmessage = message => { document.title = message.data; };</script>
<iframe src="page.html" width="%d" height="900"></iframe>"""


def assert_all_is_seen(html: str, folder: Path, width: int) -> None:
    """Show a page in a window of a given width in pixels."""
    (folder / "page.html").write_text(html.replace("</body>", _MEASURE))
    window = folder / "window.html"
    window.write_text(_WINDOW % width)
    done = subprocess.run(
        [
            BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
            "--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}",
            f"--window-size={width + 100},1000", window.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "CONSOLE" not in done.stderr
    title = re.search(r"<title>(\d+) (\d+) (\d+)</title>", done.stdout)
    assert title, done.stdout[:500]
    inner, needed, wide = map(int, title.groups())
    assert needed <= inner == width
    assert wide == 0
