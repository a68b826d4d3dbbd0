"""All tests named in docs/trust.md exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_test_that_the_page_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs/trust.md").read_text()))
    files = (ROOT / "tests").rglob("test_*.py")
    there = set(re.findall(r"^def (test_\w+)", "\n".join(f.read_text() for f in files), re.M))
    assert len(named) > 40
    assert named - there == set()
