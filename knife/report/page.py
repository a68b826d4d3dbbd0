"""The report's page: one HTML file that needs no network, no script and no other file."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape


@dataclass(frozen=True)
class Section:
    """A part of the page: its title, and its body as HTML that is safe."""

    title: str
    body: Markup

    @cached_property
    def id(self) -> str:
        """What a link to the section names."""
        return re.sub(r"\W+", "-", self.title.lower()).strip("-")


def page(title: str, lead: Sequence[str], sections: Sequence[Section]) -> str:
    """The whole page: what it came to in a sentence or two (`lead`), then the sections.

    It reads in light and dark, at any width from that of a telephone, and prints.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    return environment.get_template("page.html").render(title=title, lead=lead, sections=sections)


def table(
    caption: str,
    heads: Sequence[str],
    rows: Sequence[Sequence[object]],
    numbers: Iterable[int] = (),
) -> Markup:
    """A table with a caption; `numbers` are the columns that are set to the right.

    It scrolls in a box of its own where the page is too narrow. All texts are escaped.
    """

    to_the_right = set(numbers)

    def cells(name: str, row: Sequence[object], scope: str = "") -> Markup:
        found = Markup()
        for place, value in enumerate(row):
            kind = Markup(' class="number"') if place in to_the_right else Markup()
            found += Markup("<{0}{1}{2}>{3}</{0}>").format(Markup(name), Markup(scope), kind, value)
        return found

    head = cells("th", heads, ' scope="col"')
    body = Markup("\n").join(Markup("<tr>{}</tr>").format(cells("td", row)) for row in rows)
    return Markup(
        '<div class="wide" tabindex="0" role="region" aria-label="{0}"><table>'
        "<caption>{0}</caption><thead><tr>{1}</tr></thead>\n<tbody>{2}</tbody></table></div>"
    ).format(caption, head, body)


def paragraphs(*sentences: str) -> Markup:
    """Each as a paragraph, escaped."""
    return Markup("\n").join(Markup("<p>{}</p>").format(escape(s)) for s in sentences)


def facts(items: Iterable[tuple[str, object]]) -> Markup:
    """What is known, by name."""
    found = Markup().join(Markup("<dt>{}</dt><dd>{}</dd>").format(*item) for item in items)
    return Markup("<dl>{}</dl>").format(found)


def listing(summary: str, text: str) -> Markup:
    """A long text that is folded below its name."""
    return Markup("<details><summary>{}</summary><pre>{}</pre></details>").format(summary, text)


def empty(reason: str) -> Markup:
    """What stands in a section that has nothing to show."""
    return Markup('<p class="empty">{}</p>').format(reason)
