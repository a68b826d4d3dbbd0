"""Rules of this repository that no linter checks: file lengths and the documented layout.

Which packages may import which is in pyproject.toml, and checked by `lint-imports`.
"""

import ast
import re
import tomllib
from pathlib import Path

HOUSE = Path(__file__).parents[1] / "knife"
FILES = sorted(HOUSE.rglob("*.py"))


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_no_file_is_longer_than_450_lines() -> None:
    assert {str(path): lines(path) for path in FILES if lines(path) > 450} == {}


def test_half_of_the_files_are_under_150_lines() -> None:
    lengths = sorted(lines(path) for path in FILES)
    assert lengths[len(lengths) // 2] < 150


def test_at_the_top_there_are_packages_alone() -> None:
    top = {path.name for path in HOUSE.iterdir() if path.is_file()}
    assert top == {"__init__.py", "__main__.py", "py.typed"}
    packages = {path.parent for path in FILES}
    assert all((package / "__init__.py").is_file() for package in packages)


def tree() -> str:
    """Return the packages and their docstrings, from top to bottom as in the layers contract."""
    config = tomllib.loads((HOUSE.parent / "pyproject.toml").read_text(encoding="utf-8"))
    layers = config["tool"]["importlinter"]["contracts"][0]["layers"]
    names = [name for row in layers for name in row.split(" : ")]
    inside = [
        package
        for name in names
        for package in sorted({path.parent for path in (HOUSE / name).rglob("*.py")})
    ]
    lines = []
    for package in inside:
        text = ast.get_docstring(ast.parse((package / "__init__.py").read_text(encoding="utf-8")))
        assert text
        depth = len(package.relative_to(HOUSE).parts)
        lines.append(f"{'  ' * depth + package.name + '/':<14} {text.splitlines()[0]}")
    return "\n".join(["knife/", *lines])


def test_the_page_on_architecture_has_the_packages_that_there_are() -> None:
    page = (HOUSE.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert f"```text\n{tree()}\n```" in page


def test_the_page_on_architecture_names_files_that_there_are() -> None:
    page = (HOUSE.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z]+/[a-z_]+\.py)`", page))
    assert len(named) > 20
    assert [name for name in named if not (HOUSE / name).is_file()] == []


def test_the_page_for_contributors_names_files_that_there_are() -> None:
    page = (HOUSE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(knife/[a-z_/]+(?:\.py)?)`", page))
    assert len(named) > 10
    assert [name for name in named if not (HOUSE.parent / name).exists()] == []
