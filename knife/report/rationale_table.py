"""The scores of rationales for a terminal."""

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from knife.core.words import counted
from knife.stats.rationale_scores import THIRDS, RationaleScores


def render(scores: RationaleScores) -> Group:
    """Render a table of the scores, then how the gain of `knife` relates to them, and the notes."""
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
    return Group(table, Text("\n".join(_below(scores))))


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
