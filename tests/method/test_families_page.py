"""docs/families.md says what the self-test says today."""

import importlib.util
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def without_sizes(text: str) -> str:
    """Return a text without how far numbers differ, which depends on the machine."""
    return re.sub(r"\(by [^)]*\)", "", text)


def test_every_family_does_what_the_page_says() -> None:
    spec = importlib.util.spec_from_file_location("families", ROOT / "scripts" / "families.py")
    assert spec
    assert spec.loader
    families = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(families)
    made = families.page(families.results())
    assert without_sizes(made) == without_sizes(families.PAGE.read_text())
