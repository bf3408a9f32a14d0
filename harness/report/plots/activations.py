"""The textbook's diagram of an activation function: f, f', and where the gate is open."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from harness.report.functions import FUNCTIONS, Interval, closed, function
from harness.report.plots.base import figure, headline, legend_above, panels
from harness.report.style import OKABE_ITO, current

OPEN = OKABE_ITO[2]
VALUE, SLOPE = OKABE_ITO[0], OKABE_ITO[1]
READ = (
    "solid blue = the output f(z), dashed orange = its slope f′(z); shaded = the gate is open, so a gradient "
    "passes; hatched = it is closed, and a unit all of whose inputs land there is dead."
)


@figure(READ)
def activation(name: str, *, eps: float = 1e-6) -> Figure:
    """Diagram of one activation function.

    Args:
        name: its canonical name, e.g. "relu".
        eps: the gate is open where |f'| exceeds this.

    Raises:
        ValueError: unknown function.
    """
    drawn = function(name)
    made = Figure(figsize=(5.6, 3.9), layout="constrained")
    axis = made.subplots()
    _diagram(axis, name, eps)
    axis.set_xlabel("pre-activation z")
    legend_above(axis, 4, handles=_legend())
    headline(made, f"{name}:  f(z) = {drawn.formula}", f"Gate {in_words(closed(name, eps))}.")
    return made


@figure(READ)
def activations(names: list[str] | None = None, *, eps: float = 1e-6) -> Figure:
    """All activation functions on one sheet.

    Args:
        names: canonical names; None draws every function.
        eps: the gate is open where |f'| exceeds this.

    Raises:
        ValueError: unknown function.
    """
    names = list(FUNCTIONS) if names is None else names
    made, axes = panels(len(names), width=3.0, height=2.5)
    for axis, name in zip(axes, names, strict=True):
        _diagram(axis, name, eps)
        axis.set_title(
            f"$\\bf{{{name.replace('_', chr(92) + '_')}}}$\n{in_words(closed(name, eps))}", fontsize=8
        )
    made.legend(handles=_legend(), loc="outside upper left", ncols=4)
    return made


def in_words(shut: list[Interval]) -> str:
    """Describe where the gate is closed.

    Example:
        >>> in_words([Interval(-np.inf, 0.0)]), in_words([]), in_words([Interval(-1.5, -1.5)])
        ('closed for z ≤ 0', 'open everywhere', 'closed at z = −1.5')
    """
    parts = []
    for low, high in shut:
        if np.isinf(low):
            parts.append(f"z ≤ {_number(high)}")
        elif np.isinf(high):
            parts.append(f"z ≥ {_number(low)}")
        elif high - low < 1e-4:
            parts.append(f"z = {_number(low)}")
        elif abs(low + high) < 1e-9:
            parts.append(f"|z| ≤ {_number(high)}")
        else:
            parts.append(f"{_number(low)} ≤ z ≤ {_number(high)}")
    text = ", ".join(parts)
    mirrored = len(shut) == 2 and abs(shut[0].high + shut[1].low) < 1e-6 and np.isinf(shut[0].low)
    if mirrored:
        text = f"|z| ≥ {_number(shut[1].low)}"
    word = "at" if len(shut) == 1 and text.startswith("z =") else "for"
    return f"closed {word} {text}" if shut else "open everywhere"


def _number(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")


def _diagram(axis: Axes, name: str, eps: float) -> None:
    drawn, ink = function(name), current().theme.ink
    low, high = drawn.window
    z = np.linspace(low, high, 2401)
    axis.axhline(0, color=current().theme.soft, linewidth=0.6)
    axis.axvline(0, color=current().theme.soft, linewidth=0.6)
    start = low
    for left, right in [*closed(name, eps), Interval(high, high)]:
        end = min(max(left, low), high)
        if end > start:
            axis.axvspan(start, end, color=OPEN, alpha=0.16, linewidth=0)
        if right - left < 0.01 and low < left < high:
            axis.axvline(left, color=ink, linestyle=":", linewidth=1.2)
        start = max(start, min(right, high))
    for left, right in closed(name, eps):
        a, b = max(left, low), min(right, high)
        if b - a >= 0.01:
            axis.axvspan(a, b, facecolor="none", edgecolor=current().theme.grid, hatch="////", linewidth=0)
    for row, (value, slope) in enumerate(
        zip(np.atleast_2d(drawn.value(z)), np.atleast_2d(drawn.slope(z)), strict=True)
    ):
        jump = np.abs(np.diff(slope, append=slope[-1])) > 0.05  # a kink is not a steep line
        gap = np.abs(np.diff(value, append=value[-1])) > 0.05
        axis.plot(z, np.where(gap, np.nan, value), color=VALUE, linewidth=2.0 - 0.7 * row)
        axis.plot(
            z, np.where(jump, np.nan, slope), color=SLOPE, linewidth=1.6 - 0.4 * row, linestyle=(0, (4, 2))
        )
    top = max(1.3, min(float(np.max(drawn.value(z))), high) * 1.05)
    bottom = min(-0.4, max(float(np.min([drawn.value(z).min(), drawn.slope(z).min()])) * 1.1, -2.2))
    axis.set_xlim(low, high)
    axis.set_ylim(bottom, top)


def _legend() -> list[Line2D | Patch]:
    return [
        Line2D([], [], color=VALUE, linewidth=2.0, label="f(z)"),
        Line2D([], [], color=SLOPE, linewidth=1.6, linestyle=(0, (4, 2)), label="f′(z)"),
        Patch(facecolor=OPEN, alpha=0.16, label="gate open"),
        Patch(facecolor="none", edgecolor=current().theme.grid, hatch="////", label="gate closed"),
    ]
