"""The verdict for a terminal: one table, and one sentence."""

from rich import box
from rich.table import Table
from rich.text import Text

from knife.report.verdict import Difference, MethodVerdict, Verdict

SIGNIFICANT = 0.05


def render(verdict: Verdict) -> Table:
    """A table of the methods (accuracy in percent, difference in points), the teacher's ceiling,
    and below it the verdict in one sentence and the notes. Readable at 80 columns."""
    below = [sentence(verdict), *verdict.notes]
    table = Table(box=box.SIMPLE_HEAD, caption=Text("\n".join(below)), caption_justify="left")
    table.caption_style = ""
    table.add_column("method", overflow="fold")
    table.add_column("accuracy", no_wrap=True)
    table.add_column(f"to {verdict.baseline} (95 %)", justify="right")
    table.add_column("p", justify="right", no_wrap=True)
    for method in verdict.methods:
        accuracy = f"{_percent(method.accuracy):>5}{_sd(method.sd)}"
        table.add_row(method.method, accuracy, *_cells(method.difference))
    if verdict.ceiling:
        table.add_section()
        for words, share in (
            ("teacher, with rationale", verdict.ceiling.with_rationale),
            ("teacher, without", verdict.ceiling.without_rationale),
        ):
            if share is not None:
                table.add_row(words, f"{_percent(share):>5}", "", "")
    return table


def sentence(verdict: Verdict) -> str:
    """The verdict in one plain sentence: of `knife`, or else of the best method."""
    others = [method for method in verdict.methods if method.difference]
    if not others:
        best = max(verdict.methods, key=lambda method: method.accuracy)
        return f"{best.method} answers {_percent(best.accuracy)} % right ({_counts(best)})."
    named = [method for method in others if method.method == "knife"]
    method = named[0] if named else max(others, key=lambda other: other.accuracy)
    difference = method.difference
    assert difference
    if difference.points == 0 and difference.p == 1:
        return (
            f"{method.method} and {verdict.baseline} are right on equally many examples "
            f"({_counts(method)})."
        )
    side = "above" if difference.points > 0 else "below"
    start = f"{method.method} is {abs(difference.points):.1f} points {side} {verdict.baseline}"
    if difference.p is None or difference.low is None or difference.high is None:
        return f"{start} ({_counts(method)})."
    chance = "" if difference.p < SIGNIFICANT else ", which may be chance"
    low, high = difference.low, difference.high
    if difference.points < 0:
        low, high = -high, -low
    p = f"p {_p(difference.p)}" if difference.p < 0.001 else f"p = {_p(difference.p)}"
    return f"{start}{chance} (95 % interval {low:.1f} to {high:.1f}, {p}; {_counts(method)})."


def _counts(method: MethodVerdict) -> str:
    seeds = method.difference.seeds if method.difference else method.seeds
    return f"{seeds} seed{'s'[: seeds > 1]}, {method.examples} test examples"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _sd(sd: float | None) -> str:
    return "" if sd is None else f" ± {100 * sd:.1f}"


def _cells(difference: Difference | None) -> tuple[str, str]:
    if difference is None:
        return "", ""
    points = f"{difference.points:+.1f}"
    if difference.p is None:
        return points, ""
    return f"{points} ({difference.low:+.1f} to {difference.high:+.1f})", _p(difference.p)


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"
