"""Parts shared by all figures: captions, look, panels, axes of steps and shares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from textwrap import fill
from typing import Any, ParamSpec

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from harness.report.style import current, rc

P = ParamSpec("P")
Draw = Callable[P, Figure]

#: Name of a figure → the line that explains how to read it.
CAPTIONS: dict[str, str] = {}


def figure(read: str) -> Callable[[Draw[P]], Draw[P]]:
    """Decorator for functions that return a figure: applies the current look and adds the caption.

    Args:
        read: continues "Read it as: "; also becomes the figure's label.
    """

    def decorate(draw: Draw[P]) -> Draw[P]:
        text = f"Read it as: {read}"
        CAPTIONS[draw.__name__] = text

        @wraps(draw)
        def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
            with mpl.rc_context(rc()):
                made = draw(*args, **kwargs)
                made.set_label(text)
                if current().captions:
                    _write_below(made, fill(text, max(40, int(17.5 * made.get_figwidth()))))
            return made

        return drawn

    return decorate


def _write_below(made: Figure, text: str) -> None:
    """Make room at the bottom of a figure, and write text there."""
    before, room = made.get_figheight(), 0.05 + 0.14 * (text.count("\n") + 1)
    made.set_figheight(before + room)
    small = {"fontsize": 7.5, "ha": "left", "color": current().theme.soft}
    if made.get_layout_engine() is not None:
        made.supxlabel(text, x=0.01, **small)
        return
    for part in (*made.axes, *made.texts):  # manually placed parts move up
        if isinstance(part, Axes):
            x, y, width, height = part.get_position().bounds
            share = before / (before + room)
            part.set_position((x, 1 - (1 - y) * share, width, height * share))
        else:
            part.set_y(1 - (1 - part.get_position()[1]) * before / (before + room))
    made.text(0.01, 0.06 / (before + room), text, va="bottom", **small)


def caption(of: Callable[..., Figure] | str) -> str:
    """The line "Read it as: …" for a figure's function, or its name.

    Raises:
        ValueError: unknown figure.

    Example:
        >>> from harness.report import plots
        >>> plots.caption(plots.state_bars).startswith("Read it as: ")
        True
    """
    name = of if isinstance(of, str) else of.__name__
    if name not in CAPTIONS:
        raise ValueError(f"expected a figure, one of {', '.join(sorted(CAPTIONS))}, but got {name!r}")
    return CAPTIONS[name]


def need(frame: pd.DataFrame, columns: Sequence[str], who: str) -> None:
    """Raise ValueError if the frame has no rows or lacks a column."""
    missing = [column for column in columns if column not in frame]
    if missing:
        raise ValueError(f"{who}: expected the columns {', '.join(columns)}; missing: {', '.join(missing)}")
    if frame.empty:
        raise ValueError(f"{who}: there is nothing to draw, the table has no rows")


def panels(
    count: int, *, columns: int = 4, width: float = 2.9, height: float = 2.6, **shared: Any
) -> tuple[Figure, list[Axes]]:
    """A figure with `count` panels in rows of at most `columns`; the rest of the last row is empty."""
    columns = min(count, columns)
    rows = -(-count // columns)
    made = Figure(figsize=(max(5.2, width * columns + 0.4), height * rows + 0.6), layout="constrained")
    axes = made.subplots(rows, columns, squeeze=False, **shared).ravel().tolist()
    for empty in axes[count:]:
        empty.remove()
    return made, axes[:count]


def headline(made: Figure, *lines: str) -> None:
    """Title and facts, on separate lines, above the figure on the left; empty ones are left out."""
    width = max(30, int(14 * made.get_figwidth()))
    text = "\n".join(fill(line, width) for line in lines if line)
    if text:
        made.suptitle(text, x=0.01, ha="left")


def legend_above(axes: Axes, columns: int, **options: Any) -> None:
    """Place the legend between title and axes, on the left."""
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        ncols=columns,
        borderaxespad=0.2,
        borderpad=0.2,
        handlelength=1.6,
        columnspacing=1.2,
        **options,
    )


def share_axis(axis: Any) -> None:
    """Format an axis of shares in [0, 1] as percentages."""
    axis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.3g}%"))


def step_axis(axes: Axes, steps: np.ndarray) -> None:
    """Format an axis of steps: logarithmic if censuses are dense at the beginning, since deaths are, too."""
    last = float(steps.max())
    early = np.mean(np.unique(steps) <= 0.1 * last) > 0.25
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    if last > 20 and early:
        axes.set_xscale("symlog", linthresh=1, linscale=0.5)
        powers = [0.0, *10.0 ** np.arange(0, np.log10(last) - 0.5), last]  # apart enough to be read
        axes.xaxis.set_major_locator(FixedLocator(powers))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.set_xlabel("step (logarithmic)")
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_xlabel("step")
    axes.set_xlim(float(steps.min()), last if last > steps.min() else last + 1)
    axes.get_xticklabels()[-1].set_horizontalalignment("right")  # or it overlaps the next panel


def short(name: str, most: int = 28) -> str:
    """The end of a long site name, which says more than its beginning.

    Example:
        >>> short("transformer.encoder.layers.11.feed_forward.activation")
        '….11.feed_forward.activation'
    """
    return name if len(name) <= most else f"…{name[-most + 1 :]}"
