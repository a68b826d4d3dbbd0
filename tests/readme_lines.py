"""The commands that README.md shows."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def blocks() -> Iterator[tuple[str, str]]:
    """Return language and text of every fenced block, in order."""
    for block in re.finditer(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL):
        yield block.group(1), block.group(2)


def lines() -> Iterator[list[str]]:
    """Return the words of every command."""
    for language, text in blocks():
        if language == "sh":
            yield from (shlex.split(line, comments=True) for line in text.splitlines())


def needs_a_cluster(words: list[str]) -> bool:
    """Whether tests/cluster/test_submit.py runs this one, on a real cluster."""
    return words[:3] == ["ray", "job", "submit"] or words[:2] == ["knife", "submit"]
