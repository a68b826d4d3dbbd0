"""docs/tour.md: its commands work, and the page shows what they print."""

import re
import shutil
import sys
from pathlib import Path

import pytest
from command_fixtures import free_port

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
from make_tour import BLOCK, PAGE, tour  # noqa: E402

TEXT = PAGE.read_text(encoding="utf-8")


def test_every_block_shows_its_output_and_pictures_are_there() -> None:
    blocks = list(BLOCK.finditer(TEXT))
    assert len(blocks) == TEXT.count("```sh\n")
    assert all(block.group("output").strip() for block in blocks)
    pictures = re.findall(r"!\[.+\]\((images/\S+)\)", TEXT)
    assert pictures
    for name in pictures:
        assert 10_000 < (PAGE.parent / name).stat().st_size < 300_000


def test_the_first_blocks() -> None:
    """The questions and their check train nothing and print the same on every machine."""
    with tour() as done:
        for block in list(BLOCK.finditer(TEXT))[:2]:
            assert done.run(block.group("commands")) == block.group("output")


@pytest.mark.slow
def test_the_whole_tour() -> None:
    if not shutil.which("curl"):
        pytest.skip("no curl")
    ports = {port: str(free_port()) for port in ("5000", "5001", "8808")}
    with tour(ports) as done:
        outputs = {b.group("commands"): done.run(b.group("commands")) for b in BLOCK.finditer(TEXT)}
    said = "\n".join(outputs.values())
    for words in (
        "near-duplicates in train",
        "knife is ",
        "report.html",
        "the best as a recipe: ",
        "OK",
        '"predictions"',
        "requests: 700 (0 are answered already)",
        "without sight of the answer",
        "note: rationales of train: ",
    ):
        assert words in said
