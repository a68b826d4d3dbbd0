"""Figures of the report: drawn by matplotlib, embedded in the page as SVG.

Text and axes take the page's text colour, so they are readable on light and dark backgrounds.
Lines differ in dashes and in the colours of Okabe and Ito, which colour-blind readers can
distinguish (https://jfly.uni-koeln.de/color/).
"""

import io
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito without black and yellow, which have too little contrast on one of the backgrounds.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ("-", "--", "-.", ":")
# Placeholders for the page's text and background colours while matplotlib draws.
INK, GROUND = "#010203", "#fefdfc"
SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "knife",
    "font.family": "sans-serif",
    "font.size": 9,
    # A value may contain dollar signs.
    "text.parse_math": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 9,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "axes.grid": True,
}


def panels(
    count: int, columns: int, width: float, height: float, sharey: bool = False
) -> tuple["Figure", list["Axes"]]:
    """Create a figure in the report's style with `count` panels of `width` x `height` inches, with
    a shared y scale (`sharey`) or separate ones."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    columns = min(columns, count)
    rows = -(-count // columns)
    with rc_context(SETTINGS):
        figure = Figure(figsize=(columns * width, rows * height), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False, sharey=sharey).flat
        for spare in axes[count:]:
            spare.remove()
    return figure, list(axes[:count])


def by_epoch(figure: "Figure", axes: Iterable["Axes"], label: str) -> None:
    """Label the panels of a figure of what happened by epoch: `label` is that of the y axis."""
    from matplotlib.ticker import MaxNLocator

    for panel in axes:
        panel.xaxis.set_major_locator(MaxNLocator(4, integer=True, min_n_ticks=1))
    figure.supxlabel("epoch", fontsize=9)
    figure.supylabel(label, fontsize=9)


def inline(figure: "Figure", name: str, alt: str, caption: str = "") -> Markup:
    """Return a figure as HTML; `name` is unique in the page, `alt` describes it in words."""
    from matplotlib import rc_context

    drawn = io.StringIO()
    with rc_context(SETTINGS):
        figure.savefig(
            drawn, format="svg", bbox_inches="tight", transparent=True, metadata={"Date": None}
        )
    svg = drawn.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor").replace(GROUND, "var(--ground)")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # Ids of SVG parts are the same in every figure: a prefix makes them unique.
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{name}-", svg)
    opening = Markup('<svg role="img" aria-label="{}" ').format(alt)
    svg = svg.replace("<svg ", opening, 1)
    return Markup('<figure><div class="wide">{}</div><figcaption>{}</figcaption></figure>').format(
        Markup(svg), caption
    )
