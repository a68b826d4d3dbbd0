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
    """A part of the page: its title, and its body as safe HTML."""

    title: str
    body: Markup

    @cached_property
    def id(self) -> str:
        """The anchor for links to the section."""
        return re.sub(r"\W+", "-", self.title.lower()).strip("-")


def page(title: str, lead: Sequence[str], sections: Sequence[Section]) -> str:
    """Render the page: the result in a sentence or two (`lead`), then the sections.

    It is readable in light and dark mode, at any width from a phone's up, and in print.
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
    """Return a table with a caption; `numbers` are the right-aligned columns.

    It scrolls in its own box if the page is too narrow. All texts are escaped.
    """

    to_the_right = set(numbers)

    def cells(name: str, row: Sequence[object], scope: str = "") -> Markup:
        found = Markup()
        for index, value in enumerate(row):
            kind = Markup(' class="number"') if index in to_the_right else Markup()
            found += Markup("<{0}{1}{2}>{3}</{0}>").format(Markup(name), Markup(scope), kind, value)
        return found

    head = cells("th", heads, ' scope="col"')
    body = Markup("\n").join(Markup("<tr>{}</tr>").format(cells("td", row)) for row in rows)
    return Markup(
        '<div class="wide" tabindex="0" role="region" aria-label="{0}"><table>'
        "<caption>{0}</caption><thead><tr>{1}</tr></thead>\n<tbody>{2}</tbody></table></div>"
    ).format(caption, head, body)


def paragraphs(*sentences: str) -> Markup:
    """Return each sentence as a paragraph, escaped."""
    return Markup("\n").join(Markup("<p>{}</p>").format(escape(s)) for s in sentences)


def facts(items: Iterable[tuple[str, object]]) -> Markup:
    """Return a definition list of (name, value) items."""
    found = Markup().join(Markup("<dt>{}</dt><dd>{}</dd>").format(*item) for item in items)
    return Markup("<dl>{}</dl>").format(found)


def listing(summary: str, text: str) -> Markup:
    """Return a long text folded under a summary line."""
    return Markup("<details><summary>{}</summary><pre>{}</pre></details>").format(summary, text)


def empty(reason: str) -> Markup:
    """Return the text of a section that has nothing to show."""
    return Markup('<p class="empty">{}</p>').format(reason)
