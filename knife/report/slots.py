"""The section of a report on slots: which stage each of them made, and when."""

import json
from pathlib import Path
from typing import Any

from knife.report import figures
from knife.report.page import Section, empty, paragraphs

Row = dict[str, Any]
# Which slot made what, and when, in the folder of a run or a sweep: written by
# knife.pipeline.timeline.
SLOTS = "slots.jsonl"
# A pause between two rows longer than this separates starts of the run, which are drawn apart.
_PAUSE_SECONDS = 120.0
# More slots than this are not worth drawing.
_MOST_SLOTS = 64
_COLOURS = dict(zip(("teacher", "states", "student", "evaluate"), figures.COLOURS, strict=False))
_UNFINISHED, _GREY = "not finished", "#888888"


def slots(folder: Path) -> Section:
    """Return the chart of the last start of a run or a sweep that made something, and the share of
    idle time."""
    title = "Slots"
    path = folder / SLOTS
    lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
    # The last line may still be being written.
    found = [json.loads(line) for line in lines if line.endswith("\n")]
    if not found:
        return Section(title, empty("It is not known which slot made which stage."))
    rows = last_start(found)
    names = sorted({row["slot"] for row in rows})
    begin, end = min(row["begin"] for row in rows), max(row["end"] for row in rows)
    shown = names[:_MOST_SLOTS]
    figure, (axes,) = figures.panels(1, 1, 7.0, 0.6 + 0.3 * len(shown))
    for kind, colour in (*_COLOURS.items(), (_UNFINISHED, _GREY)):
        bars = [row for row in rows if (row["kind"] if row["made"] else _UNFINISHED) == kind]
        axes.barh(
            [shown.index(row["slot"]) for row in bars if row["slot"] in shown],
            [row["end"] - row["begin"] for row in bars if row["slot"] in shown],
            left=[row["begin"] - begin for row in bars if row["slot"] in shown],
            height=0.7,
            color=colour,
            edgecolor=figures.GROUND,
            linewidth=0.5,
            label=kind if bars else None,
        )
    axes.set_yticks(range(len(shown)), [f"slot {name}" for name in shown])
    axes.invert_yaxis()
    axes.set_xlabel("seconds")
    figure.legend(loc="outside upper right", ncols=5, fontsize=8)
    idle = idle_share(rows)
    count = f"{len(names)} slots" if len(names) > 1 else "One slot"
    words = f"{count} in {end - begin:.0f} s, of which {idle:.0%} idle."
    return Section(title, paragraphs(words) + figures.inline(figure, "slots", words))


def last_start(rows: list[Row]) -> list[Row]:
    """Return the rows of the last start: those after the last long pause."""
    ordered, found = sorted(rows, key=lambda row: row["begin"]), list[Row]()
    end = 0.0
    for row in ordered:
        if row["begin"] - end > _PAUSE_SECONDS:
            found = []
        found.append(row)
        end = max(end, row["end"])
    return found


def idle_share(rows: list[Row]) -> float:
    """Return the share of time in which slots made nothing, from the first begin to the last
    end."""
    span = max(row["end"] for row in rows) - min(row["begin"] for row in rows)
    number = len({row["slot"] for row in rows})
    busy = sum(row["end"] - row["begin"] for row in rows)
    return max(0.0, 1 - busy / (number * span)) if span else 0.0
