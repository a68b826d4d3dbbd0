"""The verdict for a terminal: one table and one sentence."""

from rich import box
from rich.table import Table
from rich.text import Text

from knife.core.words import counted
from knife.stats.compare import Difference
from knife.stats.verdict import MethodVerdict, Verdict

SIGNIFICANT = 0.05


def render(verdict: Verdict) -> Table:
    """Render a table of the methods (accuracy in percent, difference in points, p after Holm's
    correction, answers gained and lost) and the teacher's ceiling, above the verdict in a sentence
    or two and the notes. Readable at 80 columns."""
    below = [sentence(verdict), *verdict.notes]
    table = Table(box=box.SIMPLE_HEAD, caption=Text("\n".join(below)), caption_justify="left")
    table.caption_style = ""
    # Every character counts at a width of 80.
    table.padding = (0, 1, 0, 0)
    table.pad_edge = False
    table.add_column("method", overflow="fold")
    table.add_column("accuracy (95 %)", no_wrap=True)
    table.add_column(f"to {verdict.baseline} (95 %)", justify="right", no_wrap=True)
    table.add_column("p", justify="right", no_wrap=True)
    table.add_column("gain/loss", justify="right", no_wrap=True)
    for method in verdict.methods:
        accuracy = f"{percent(method.accuracy):>5}"
        accuracy += f" ({span})" if (span := interval(method, "-")) else ""
        table.add_row(method.method, accuracy, *difference_cells(method.difference))
    if verdict.ceiling:
        table.add_section()
        for words, share in (
            ("teacher, with rationale", verdict.ceiling.with_rationale),
            ("teacher, without", verdict.ceiling.without_rationale),
        ):
            if share is not None:
                table.add_row(words, f"{percent(share):>5}")
    return table


def sentence(verdict: Verdict) -> str:
    """Return the verdict in plain words, on `knife` if compared, else on the best method."""
    others = [method for method in verdict.methods if method.difference]
    if not others:
        best = max(verdict.methods, key=lambda method: method.accuracy)
        return f"{best.method} answers {percent(best.accuracy)} % right ({_counts(best)})."
    named = [method for method in others if method.method == "knife"]
    method = named[0] if named else max(others, key=lambda other: other.accuracy)
    difference = method.difference
    assert difference
    if round(difference.points, 9) == 0 and difference.p == 1:
        return (
            f"{method.method} and {verdict.baseline} are right on equally many examples "
            f"({_counts(method)})."
        )
    side = "above" if difference.points > 0 else "below"
    start = f"{method.method} is {abs(difference.points):.1f} points {side} {verdict.baseline}"
    p = difference.p_corrected
    if p is None or difference.low is None or difference.high is None:
        return f"{start} ({_counts(method)})."
    chance = "" if p < SIGNIFICANT else ", which may be chance"
    # Signed as in the table: below zero is below the baseline.
    low, high = difference.low, difference.high
    said = f"{start}{chance} (95 % interval {low:.1f} to {high:.1f}, {_is(p)}; {_counts(method)})."
    return said if p < SIGNIFICANT else f"{said} {_doubt(method.method, difference, verdict)}"


def _doubt(name: str, difference: Difference, verdict: Verdict) -> str:
    """Return what can be said if a difference may be chance."""
    no_worse, equal = difference.p_no_worse, difference.p_equal
    other, margin = verdict.baseline, f"{verdict.margin:g} points"
    if equal is not None and equal < SIGNIFICANT:
        return f"{name} and {other} are equal to within {margin} ({_is(equal)})."
    if no_worse is not None and no_worse < SIGNIFICANT:
        return f"{name} is no worse than {other} by more than {margin} ({_is(no_worse)})."
    return f"An experiment like this can show differences of {difference.detectable:.1f} or more."


def _counts(method: MethodVerdict) -> str:
    seeds = method.difference.seeds if method.difference else method.seeds
    return f"{counted(seeds, 'seed')}, {counted(method.examples, 'test example')}"


def percent(share: float) -> str:
    """Format a share as a percentage."""
    return f"{100 * share:.1f}"


def interval(method: MethodVerdict, to: str = " to ") -> str:
    """Format the 95 % interval of a method's accuracy in percent; empty if it has none."""
    if method.low is None or method.high is None:
        return ""
    return f"{percent(method.low)}{to}{percent(method.high)}"


def difference_cells(difference: Difference | None) -> tuple[str, str, str]:
    """Return a difference with its interval, its corrected p, and answers gained and lost."""
    if difference is None:
        return "", "", ""
    points, counts = f"{difference.points:+.1f}", f"{difference.gained}/{difference.lost}"
    p = difference.p_corrected
    if p is None:
        return points, "", counts
    return f"{points} ({difference.low:.1f} to {difference.high:.1f})", p_value(p), counts


def _is(p: float) -> str:
    return f"p {p_value(p)}" if p < 0.001 else f"p = {p_value(p)}"


def p_value(p: float) -> str:
    """Format a p value with a sensible number of digits."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"
