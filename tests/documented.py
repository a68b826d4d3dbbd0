"""The code that docs/python.md shows."""

import re
from pathlib import Path

PAGE = (Path(__file__).parents[1] / "docs" / "python.md").read_text(encoding="utf-8")


def example(section: str) -> str:
    """Return the code of a section of the page."""
    found = re.search(rf"^## {section}\n.*?^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert found
    return found.group(1)
