"""Probes of students that write rationales, as rows of tables."""

from collections.abc import Sequence

from rich import box
from rich.table import Table

from knife.stats.probe import Level, Probe

# In percent and points.
COLUMNS = ("noise", "right", "RQ", "answers left", "rationales left")


def render(probes: Sequence[Probe]) -> Table:
    """Render how answers and rationales fall with noise, for a terminal."""
    table = Table(box=box.SIMPLE_HEAD)
    for name in COLUMNS:
        table.add_column(name, justify="left" if name == COLUMNS[0] else "right")
    for probe in probes:
        for row in probe_rows(probe):
            table.add_row(*row)
        table.add_section()
    return table


def probe_rows(probe: Probe) -> list[tuple[str, ...]]:
    """Return the cells of a probe, below `COLUMNS`; the first row has the method's name alone."""
    rows: list[tuple[str, ...]] = [(probe.method, "", "", "", "")]
    for level in probe.levels:
        shares = (_share(level.answers_left), _share(level.rationales_left) + _parts(level))
        said = (f"{100 * level.accuracy:.1f}", f"{100 * level.rq:+.1f}")
        rows.append((f"{level.noise:g}", *said, *shares))
    return rows


def _share(left: tuple[float, float, float] | None) -> str:
    if left is None:
        return "nothing to lose"
    share, low, high = (round(100 * each) for each in left)
    return f"{share} ({low} to {high})"


def _parts(level: Level) -> str:
    return " unlike" if level.alike is False else ""
