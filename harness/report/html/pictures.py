"""A figure in a page: inline SVG in the page's colours, or two PNGs if those are smaller."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from html import escape

from markupsafe import Markup
from matplotlib.figure import Figure

from harness.report.images import image
from harness.report.style import THEMES, look

#: Colours of the light theme → CSS variables of the page, which follow the reader's colour scheme.
VARIABLES = {
    THEMES["light"].ink: "var(--ink)",
    THEMES["light"].soft: "var(--soft)",
    THEMES["light"].grid: "var(--grid)",
    THEMES["light"].paper: "var(--paper)",
    THEMES["light"].dead: "var(--dead)",
    THEMES["light"].on_dead: "var(--on-dead)",
}
FONT = "'DejaVu Sans', Verdana, 'Bitstream Vera Sans', sans-serif"  # of almost the same widths
HEAVY = 120_000  # bytes of SVG above which PNGs are tried
NAME = "f@"  # placeholder for the figure's number within the page, in ids
NUMBER = "@@"  # placeholder for the figure's number, in its alternative text
SHARP = 160  # resolution of PNGs, in dots per inch


@dataclass(frozen=True)
class Picture:
    """A figure and the line that explains how to read it.

    Attributes:
        markup: `<svg>` or `<picture>`.
        caption: "Read it as: …".
        width: natural width in CSS pixels.
    """

    markup: Markup
    caption: str
    width: int

    def numbered(self, number: int) -> Markup:
        """The markup with the figure's number, which makes ids and alternative texts unique in a page."""
        return Markup(self.markup.replace(NAME, f"f{number}").replace(NUMBER, f"{number:,}"))


def picture(draw: Callable[[], Figure], alt: str = "") -> Picture:
    """Draw a figure for a page.

    Args:
        draw: makes the figure; called again for the dark theme if PNGs are smaller.
        alt: alternative text; "": the titles of its panels. The caption is appended.

    Example:
        >>> from harness.report import plots
        >>> shown = picture(lambda: plots.activation("relu"))
        >>> str(shown.markup[:4]), shown.caption[:11]
        ('<svg', 'Read it as:')
    """
    with look("light", captions=False):
        made = draw()
        svg = image(made, "svg", dpi=SHARP).decode()
    caption, width = str(made.get_label()), round(made.get_figwidth() * 96)
    alt = f"Figure {NUMBER}. {alt or _described(made)} {caption}"
    inline = _inline(svg, alt)
    if len(inline) > HEAVY:
        with look("dark", captions=False):
            dark = _data(draw())
        with look("light", captions=False):
            light = _data(made)
        if len(light) + len(dark) < len(inline):
            inline = (
                f'<picture><source srcset="{dark}" media="(prefers-color-scheme: dark) and (not print)">'
                f'<img src="{light}" alt="{escape(alt)}" width="{width}"></picture>'
            )
    return Picture(Markup(inline), caption, width)


def _described(made: Figure) -> str:
    """Text that distinguishes a figure from others: titles of its panels, names of its axes."""
    parts = [axis.get_title(loc=side) for axis in made.axes for side in ("left", "center")]
    parts += [text.get_text() for text in made.texts if not text.get_text().startswith("Read it as")]
    parts += [f"{name()} by {axis.get_xlabel()}" for axis in made.axes[:1] if (name := axis.get_ylabel)()]
    return " ".join(f"{' '.join(part.split())}." for part in dict.fromkeys(parts) if part)


def _data(made: Figure) -> str:
    return f"data:image/png;base64,{b64encode(image(made, 'png', dpi=SHARP)).decode()}"


def _inline(svg: str, alt: str) -> str:
    """The `<svg>` element alone, with unique ids and the page's colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{NAME}-", svg)
    svg = svg.replace("'DejaVu Sans'", FONT)
    for colour, variable in VARIABLES.items():
        svg = re.sub(rf"(?<=[: ]){colour}(?=[;\"])", variable, svg, flags=re.IGNORECASE)
    svg = re.sub(r"\n\s*", "\n", svg)
    opening = f'<svg role="img" aria-label="{escape(alt)}" '
    return svg.replace("<svg ", opening, 1)
