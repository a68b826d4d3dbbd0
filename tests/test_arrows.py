"""The rules of the house: who may import whom, and how long a file may be."""

import ast
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[1] / "knife"
# From top to bottom; a module imports what stands in a lower row, or in its own package.
ROWS = [
    {"__main__"},
    {"cli"},
    {"submit"},
    {"submit_check"},
    {"report_command", "push"},
    {"tune", "dry_run", "predict_file", "score", "show", "sync", "ui"},
    {"run_command", "counter"},
    {"recipe_files"},
    {"display"},
    {"progress", "terminal"},
    {"steps"},
    {"pipeline"},
    {"run_record", "cards"},
    {"recording", "plan_scores"},
    {"about"},
    {"plan"},
    {"plan_stages"},
    {"plan_scale"},
    {"needs"},
    {"plan_sources"},
    {"plan_preambles"},
    {"cluster", "track", "report"},
    {"train"},
    {"method"},
    {"data"},
    {"store"},
    {"memory"},
    {"families"},
    {"bucket"},
    {"exits"},
    {"config"},
    {"overrides"},
    {"ablations"},
    {"environment", "errors", "files", "values", "words"},
    {"strict_json"},
]
FILES = sorted(HOUSE.rglob("*.py"))
NAMES = [str(path.relative_to(HOUSE)) for path in FILES]


def imports(path: Path) -> set[str]:
    """Every module that a file imports anywhere, by its full name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            assert node.module
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def part(path: Path) -> str:
    """The package or top-level module that a file belongs to."""
    return path.relative_to(HOUSE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_imports_point_downwards(path: Path) -> None:
    own = part(path)
    rows = {name: number for number, row in enumerate(ROWS) for name in row}
    if own == "__init__":
        # Its functions call those of all rows, and import them when they are called.
        first = [node for node in ast.parse(path.read_text()).body if not isinstance(node, ast.If)]
        top = {node.module for node in first if isinstance(node, ast.ImportFrom)}
        assert {name for name in top if name and name.startswith("knife")} == {"knife.errors"}
        return
    assert own in rows, f"knife/{own} has no row in this test: give it one"
    for name in imports(path):
        package, _, rest = name.partition(".")
        other = rest.partition(".")[0]
        # `from knife import __version__` is of no row, and a package may look at itself.
        if package != "knife" or other in ("", own) or other not in rows:
            continue
        assert rows[other] > rows[own], f"{path} imports {name}, which stands above or beside it"


@pytest.mark.parametrize(
    ("library", "users"),
    [("mlflow", {"track"}), ("ray", {"cluster", "tune"}), ("deepspeed", {"train"})],
)
def test_heavy_libraries_have_one_home(library: str, users: set[str]) -> None:
    found = {part(p) for p in FILES if library in {n.partition(".")[0] for n in imports(p)}}
    assert found
    assert found <= users


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_no_file_is_longer_than_450_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 450


def test_half_of_the_files_are_under_150_lines() -> None:
    lengths = sorted(len(path.read_text(encoding="utf-8").splitlines()) for path in FILES)
    assert lengths[len(lengths) // 2] < 150
