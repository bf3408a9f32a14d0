"""A report as sections of blocks, and its page: one file that loads nothing from the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from harness.report.html.pictures import Picture
from harness.store.files import typed, write_text


@dataclass(frozen=True)
class Words:
    """A paragraph.

    Attributes:
        text: plain text.
        kind: "" for ordinary text, "lead" for the most important, "note" for explanations.
    """

    text: str
    kind: str = ""


@dataclass(frozen=True)
class Code:
    """Verbatim text: a command, or a program's output."""

    text: str


@dataclass(frozen=True)
class Row:
    """Figures of one kind side by side, as far as there is room, with one caption."""

    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Tiles:
    """Key numbers: (number, what it is)."""

    items: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Link:
    """A cell with a link.

    Attributes:
        text: shown text.
        target: relative to the report.
    """

    text: str
    target: str


@dataclass(frozen=True)
class Table:
    """Rows of cells; numbers are right-aligned.

    Attributes:
        head: names of the columns.
        rows: cells: text, or links.
        left: indices of left-aligned columns.
        fold: text to click on to show the table; "" shows it at once.
        caption: the table's contents; `fold` is used if it is empty.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str | Link]]
    left: frozenset[int] = frozenset({0})
    fold: str = ""
    caption: str = ""


@dataclass(frozen=True)
class Terms:
    """Definitions: (term, meaning)."""

    items: Sequence[tuple[str, str]]


Block = Words | Code | Tiles | Table | Terms | Picture | Row


@dataclass(frozen=True)
class Section:
    """A heading and the blocks below it.

    Attributes:
        title: title of the section.
        blocks: in order.
    """

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """A whole report.

    Attributes:
        title: title of the page.
        subtitle: the subject, in one line.
        sections: in order; sections without blocks are left out.
    """

    title: str
    subtitle: str
    sections: Sequence[Section] = field(default_factory=list)

    def html(self) -> str:
        """The page as HTML; all text is escaped.

        Example:
            >>> "&lt;b&gt;" in Page("<b>", "").html()
            True
        """
        sections = [section for section in self.sections if section.blocks]
        numbers = count(1)

        def shown(figure: Picture) -> Markup:
            return figure.numbered(next(numbers))

        return _template().render(page=self, sections=sections, kind=_kind, is_link=_is_link, shown=shown)

    def write(self, path: Path) -> Path:
        """Write the page atomically."""
        write_text(path, self.html(), typed)
        return path


def _kind(block: Block) -> str:
    return type(block).__name__.lower()


def _is_link(cell: Any) -> bool:
    return isinstance(cell, Link)


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("harness.report.html", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2")
