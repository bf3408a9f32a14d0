"""Arms side by side: one row per arm, one panel per outcome, every seed a dot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.contrasts import Arm, rows_of
from experiments.figures.parts import READ, board, bounds, forest, name_of, outcome_axis
from experiments.verdicts import Verdict
from harness.compare.bootstrap import mean_interval
from harness.report.plots.base import figure, headline
from harness.report.style import OKABE_ITO, current


@figure(READ)
def arms(
    table: pd.DataFrame,
    verdict: Verdict,
    *,
    arms: Mapping[str, Arm],
    outcomes: Sequence[str] = ("dead", "accuracy"),
    title: str = "",
) -> Figure:
    """Outcomes of the arms of a claim, and what decided it.

    Args:
        table: tidy.
        verdict: of it.
        arms: name → its runs, from top to bottom.
        outcomes: one panel each; the first in strong colour.
        title: above the figure, usually the claim's sentence.

    Raises:
        ValueError: an arm without runs.
    """
    made, panels, side, _ = board(len(outcomes), len(arms), verdict)
    parts = [rows_of(table, arm) for arm in arms.values()]
    for k, (axis, outcome) in enumerate(zip(panels, outcomes, strict=True)):
        _panel(axis, parts, outcome, OKABE_ITO[0] if k == 0 else OKABE_ITO[5])
        names = [_told(name, part) for name, part in zip(arms, parts, strict=True)]
        axis.set_yticks(range(len(arms)), names if k == 0 else [""] * len(arms))
    forest(side, verdict)
    headline(made, title)
    return made


def _told(name: str, part: pd.DataFrame) -> str:
    """An arm's name, with how many of its runs diverged."""
    gone = int((part["diverged"] == 1).sum()) if "diverged" in part else 0
    return f"{name}\n({gone} of {len(part)} diverged)" if gone else name


def _panel(axis: Axes, parts: Sequence[pd.DataFrame], outcome: str, colour: str) -> None:
    """One outcome: seeds as dots, mean and interval as a bar."""
    every = []
    for y, part in enumerate(parts):
        seeds = pd.to_numeric(part[outcome], errors="coerce").astype(float).groupby(part["seed"]).mean()
        values = seeds.dropna().to_numpy()
        every.append(values)
        if not len(values):
            axis.text(0.02, y, "no finished run", va="center", fontsize=7.5, color=current().theme.soft)
            continue
        spread = 0.26 * (np.arange(len(values)) / max(1, len(values) - 1) - 0.5)
        axis.plot(values, y + spread, "o", color=colour, alpha=0.35, markersize=3.2, markeredgewidth=0)
        low, high = mean_interval(values, bounds=bounds(outcome))
        if not np.isnan(low):
            axis.plot([low, high], [y, y], color=colour, linewidth=2.2, solid_capstyle="butt")
        axis.plot(values.mean(), y, "|", color=current().theme.ink, markersize=11, markeredgewidth=1.6)
    axis.set_ylim(len(parts) - 0.5, -0.5)
    axis.grid(axis="x")
    outcome_axis(axis.xaxis, outcome, np.concatenate(every) if every else np.array([]))
    axis.set_title(fill(name_of(outcome), 20))
    axis.set_xlabel("")
