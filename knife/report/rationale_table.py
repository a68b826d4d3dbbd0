"""The scores of rationales for a terminal."""

from collections.abc import Sequence

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from knife.core.words import counted
from knife.stats.rationale_scores import THIRDS, RationaleScores
from knife.stats.written_scores import WrittenScores

COLUMNS = ("method", "RQ (points)", "consistency (%)", "by chance (%)")


def render(scores: RationaleScores, written: Sequence[WrittenScores] = ()) -> Group:
    """Render a table of the scores, how the gain of `knife` relates to them, the notes, and a table
    of what students wrote."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("score")
    table.add_column("value", justify="right", no_wrap=True)
    for words, share in (
        ("I -> O: finetune", scores.without),
        ("I + R -> O: teacher", scores.explained),
        ("R -> O: rationale alone", scores.rationale_only),
    ):
        table.add_row(f"accuracy, {words}", f"{100 * share:.1f} %")
    table.add_section()
    table.add_row("RQ, simulatability", _points(scores.rq))
    table.add_row("  where the rationale leaks", _points(scores.gain_leaking))
    table.add_row("  where it does not", _points(scores.gain_other))
    table.add_row("LAS", _points(scores.las))
    table.add_row("information beyond I", f"{scores.information:+.3f} nats")
    table.add_row("REV", f"{scores.rev:+.3f} nats")
    table.add_row("  at most", f"{scores.room:+.3f} nats")
    below = Text("\n".join(_below(scores)))
    return Group(table, below, _written(written)) if written else Group(table, below)


def _written(scores: Sequence[WrittenScores]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="rationales that students wrote", title_justify="left")
    for name in COLUMNS:
        table.add_column(name, justify="left" if name == COLUMNS[0] else "right")
    for row in written_rows(scores):
        table.add_row(*row)
    return table


def written_rows(scores: Sequence[WrittenScores]) -> list[tuple[str, ...]]:
    """Return the cells of a table of what students wrote, below `COLUMNS`."""
    return [
        (
            each.method,
            f"{each.rq:+.1f}{_range(each.rq_low, each.rq_high)}",
            f"{100 * each.consistency:.1f}"
            f"{_range(_hundred(each.consistency_low), _hundred(each.consistency_high))}",
            f"{100 * each.by_chance:.1f}",
        )
        for each in scores
    ]


def _hundred(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _range(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" ({low:.1f} to {high:.1f})"


def _below(scores: RationaleScores) -> list[str]:
    seeds = counted(scores.seeds, "seed")
    lines = [f"{scores.examples} test examples with a rationale, {seeds}."]
    for found in scores.relations:
        thirds = zip(THIRDS, found.thirds, strict=False)
        words = ", ".join(f"{name} {100 * gain:+.1f}" for name, gain in thirds)
        line = f"gain of knife in points by {found.score}: {words}"
        if found.rho is not None and found.p is not None:
            p = "p < 0.001" if found.p < 0.001 else f"p = {found.p:.3f}"
            line += f"; rank correlation {found.rho:+.2f}, {p}"
        lines.append(line)
    return [*lines, *scores.notes]


def _points(difference: float | None) -> str:
    return "none" if difference is None else f"{100 * difference:+.1f} points"
