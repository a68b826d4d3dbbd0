"""The verdict as Markdown, which MLflow shows as a run's description."""

from knife.report.table import interval, p_value, percent, sentence
from knife.stats.compare import Difference
from knife.stats.verdict import MethodVerdict, Verdict


def verdict_markdown(verdict: Verdict) -> str:
    """Return the verdict in a sentence, the table of its methods, and its notes."""
    head = ["method", "accuracy in % (95 %)", f"points to {verdict.baseline} (95 %)", "p",
            "gained / lost"]  # fmt: skip
    rows = [[each.method, _accuracy(each), *_cells(each.difference)] for each in verdict.methods]
    if verdict.ceiling:
        shares = {
            "teacher, with rationale": verdict.ceiling.with_rationale,
            "teacher, without": verdict.ceiling.without_rationale,
        }
        known = {words: share for words, share in shares.items() if share is not None}
        rows += [[words, percent(share), "", "", ""] for words, share in known.items()]
    rules = ["---", *["---:"] * 4]
    table = "\n".join(f"| {' | '.join(row)} |" for row in (head, rules, *rows))
    notes = "\n".join(f"- {note}" for note in verdict.notes)
    return "\n\n".join(filter(None, (f"**{sentence(verdict)}**", table, notes)))


def _accuracy(method: MethodVerdict) -> str:
    span = interval(method)
    return percent(method.accuracy) + (f" ({span})" if span else "")


def _cells(difference: Difference | None) -> list[str]:
    if difference is None:
        return ["", "", ""]
    points, counts = f"{difference.points:+.1f}", f"{difference.gained} / {difference.lost}"
    if difference.low is None or difference.high is None:
        return [points, "", counts]
    p = difference.p_corrected
    interval = f"{points} ({difference.low:+.1f} to {difference.high:+.1f})"
    return [interval, "" if p is None else p_value(p), counts]
