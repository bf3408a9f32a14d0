"""The common style of all figures: plain axes, colour-blind-safe colours, light and dark themes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.colors import Colormap, ListedColormap, to_rgb
from matplotlib.rcsetup import cycler

DEAD = "#000000"  # a unit that never opened: darker than any rate
UNOBSERVED = "#8a8a8a"
PALE, DARK = "#fafafa", "#101418"  # text on dark and on pale colours, in any theme

#: Okabe & Ito (2008), without yellow, which is too pale on white, and black, which means dead here; orange
#: and sky blue are darkened for a contrast of 3:1 to both backgrounds (WCAG 1.4.11).
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B87B00", "#3D97D3")
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)))  # distinguishable in greyscale print
MARKERS = ("o", "s", "^", "D", "v", "P")

#: State of a unit → its colour and hatch, each of which is unique.
STATES: dict[str, tuple[str, str]] = {
    "dead": (DEAD, ""),
    "starved": ("#D55E00", "////"),
    "rare": ("#B87B00", "||||"),
    "active": ("#0072B2", ""),
    "always_on": ("#3D97D3", "\\\\\\\\"),
    "non_finite": ("#CC79A7", "xxxx"),
    "unobserved": (UNOBSERVED, "----"),
}


@dataclass(frozen=True)
class Theme:
    """Colours of everything that is not data.

    Attributes:
        paper: background.
        ink: text and axes.
        soft: captions, reference lines.
        grid: lines behind the data.
        dead: bars of dead units, which must stand out from the background.
        on_dead: text on these bars.
    """

    paper: str
    ink: str
    soft: str
    grid: str
    dead: str
    on_dead: str


# `dead` and `on_dead` have unique values, so that a page can find and replace them in a picture
THEMES = {
    "light": Theme("#ffffff", "#1b1f24", "#5c6570", "#d8dde3", dead="#010203", on_dead="#fafbfc"),
    "dark": Theme("#14171c", "#e6e8eb", "#a2abb5", "#363d46", dead="#f2f4f6", on_dead="#0f1115"),
}


@dataclass(frozen=True)
class Look:
    """How figures are currently drawn: the theme, and whether the caption is part of the picture."""

    theme: Theme = THEMES["light"]
    captions: bool = True


LIGHT = Look()
_look: ContextVar[Look] = ContextVar("look", default=LIGHT)


def current() -> Look:
    """The current look."""
    return _look.get()


@contextmanager
def look(theme: str = "light", *, captions: bool = True) -> Iterator[Look]:
    """Context manager: draw figures with another look.

    Args:
        theme: "light" or "dark".
        captions: whether the line "Read it as …" is part of the picture.

    Raises:
        ValueError: unknown theme.

    Example:
        >>> with look("dark") as dark:
        ...     dark.theme.paper
        '#14171c'
    """
    if theme not in THEMES:
        raise ValueError(f"theme: expected one of {', '.join(THEMES)}, but got {theme!r}")
    token = _look.set(Look(THEMES[theme], captions))
    try:
        yield _look.get()
    finally:
        _look.reset(token)


def rc() -> Any:
    """Matplotlib settings for the current look."""
    theme = current().theme
    return {
        "figure.dpi": 110,
        "savefig.dpi": 150,
        "font.size": 9,
        "font.family": ["DejaVu Sans"],
        "axes.titlesize": 9.5,
        "axes.titlelocation": "left",
        "axes.labelsize": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.grid": False,
        "axes.prop_cycle": cycler(color=OKABE_ITO),
        "legend.frameon": False,
        "legend.fontsize": 8,
        "figure.titlesize": 9.5,
        "hatch.linewidth": 0.7,
        "lines.markersize": 4,
        "svg.fonttype": "none",  # text stays searchable and accessible to screen readers
        "svg.hashsalt": "harness",  # the same figure gives the same file
        "figure.facecolor": theme.paper,
        "axes.facecolor": theme.paper,
        "savefig.facecolor": theme.paper,
        "text.color": theme.ink,
        "axes.labelcolor": theme.ink,
        "axes.edgecolor": theme.ink,
        "axes.titlecolor": theme.ink,
        "xtick.color": theme.ink,
        "ytick.color": theme.ink,
        "legend.labelcolor": theme.ink,
        "grid.color": theme.grid,
        "grid.linewidth": 0.6,
    }


def rates() -> Colormap:
    """Colours of activation rates: viridis without its darkest part, which could be mistaken for dead."""
    colours = mpl.colormaps["viridis"](np.linspace(0.2, 1, 256))
    return ListedColormap(colours).with_extremes(bad=UNOBSERVED)


def shares() -> Colormap:
    """Colours of dead shares: pale for none, dark for all."""
    return ListedColormap(mpl.colormaps["YlGnBu"](np.linspace(0.03, 0.97, 256)))


def ordered(count: int) -> list[tuple[float, float, float, float]]:
    """`count` colours from dark to light whose order is preserved in greyscale print.

    Example:
        >>> len(ordered(3))
        3
    """
    return [tuple(colour) for colour in mpl.colormaps["viridis"](np.linspace(0.08, 0.85, count))]


def text_on(colour: Any) -> str:
    """The text colour that is readable on a colour.

    Example:
        >>> text_on("#000000"), text_on("#ffffff")
        ('#fafafa', '#101418')
    """
    red, green, blue = to_rgb(colour)
    return PALE if 0.299 * red + 0.587 * green + 0.114 * blue < 0.55 else DARK
