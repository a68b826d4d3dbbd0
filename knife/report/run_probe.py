"""The section of a run's report on what `knife probe` found."""

import json
from typing import Any

from knife.report import figures
from knife.report.page import Section, empty, paragraphs, table
from knife.report.probe_table import COLUMNS, probe_rows
from knife.report.run_data import RunData
from knife.stats.probe import NAME, Agreement, Level, Probe


def probes(run: RunData) -> Section:
    """Return the section on whether students' rationales belong to their answers."""
    title, path = "Answers and written rationales", run.folder / NAME
    if not path.is_file():
        said = "No student of this run that writes rationales was probed: see knife probe."
        return Section(title, empty(said))
    found = [_read(values) for values in json.loads(path.read_text())]
    rows = [row for each in found for row in probe_rows(each)]
    caption = "Noise on the embeddings of task inputs, in units of the embeddings' deviation"
    body = table(caption, COLUMNS, rows, [1, 2, 3, 4])
    body += paragraphs(*(line for each in found for line in each.lines()))
    known = [each for each in found if all(level.alike is not None for level in each.levels)]
    if known:
        drawn, axes = figures.panels(len(known), 3, 2.6, 2.2, sharey=True)
        for panel, each in zip(axes, known, strict=True):
            for number, part in enumerate(("answers", "rationales")):
                noises = [level.noise for level in each.levels]
                left = [getattr(level, f"{part}_left") for level in each.levels]
                value, low, high = ([100 * share for share in of] for of in zip(*left, strict=True))
                colour, dashes = figures.COLOURS[number], figures.DASHES[number]
                panel.plot(noises, value, dashes, color=colour, label=part)
                panel.fill_between(noises, low, high, color=colour, alpha=0.2, linewidth=0)
            panel.set_title(each.method)
        axes[0].set_ylabel("left (%)")
        axes[0].legend()
        drawn.supxlabel("noise", fontsize=9)
        alt = "; ".join(line for each in known for line in each.lines()[:1])
        body += figures.inline(drawn, "probe", alt, "What is left of answers and rationales.")
    return Section(title, body)


def _read(values: dict[str, Any]) -> Probe:
    agreement = values["agreement"] and Agreement(**values["agreement"])
    levels = [Level(**each) for each in values["levels"]]
    return Probe(**(values | {"levels": levels, "agreement": agreement}))
