"""What a report's page says, as text."""

import re
from html import unescape


def section(html: str, title: str) -> str:
    """Return the text of a section without tags, separated by spaces."""
    body = html.partition(f"<h2>{title}</h2>")[2].partition("</section>")[0]
    assert body, title
    return unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", body))).strip()
