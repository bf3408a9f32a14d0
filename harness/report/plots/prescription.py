"""Cost and benefit of cures: the metric against the dead share."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from harness.report.plots.base import figure, headline, need, share_axis
from harness.report.style import MARKERS, OKABE_ITO, current


@figure(
    "up = a better metric, left = fewer dead units; filled marks were trained to the last round, hollow ones "
    "for fewer steps. No cure of the last round is better in both than those on the line."
)
def trade_off(table: pd.DataFrame, *, metric: str = "accuracy", title: str = "") -> Figure:
    """Scatter plot: the mean metric of every arm of a prescription against its mean dead share.

    Args:
        table: table of a `harness.Prescription`.
        metric: name of the metric.
        title: title of the figure.

    Raises:
        ValueError: the table is empty, or a column is missing.
    """
    need(table, ("cure", "steps", "metric", "dead"), "trade_off")
    made = Figure(figsize=(7.6, 3.8), layout="constrained")
    axes = made.subplots()
    last = table[table["steps"].eq(table["steps"].max())]
    front = best_of_both(last)
    axes.step(front["dead"], front["metric"], where="post", color=current().theme.soft, linewidth=1, zorder=1)
    hollow = table.drop(last.index)
    axes.scatter(hollow["dead"], hollow["metric"], s=30, facecolors="none", edgecolors=current().theme.soft)
    for k, (cure, dead, value) in enumerate(zip(last["cure"], last["dead"], last["metric"], strict=True)):
        colour, marker = OKABE_ITO[k % len(OKABE_ITO)], MARKERS[k % len(MARKERS)]
        axes.scatter(dead, value, s=45, color=colour, marker=marker, label=str(cure), zorder=2)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0, fontsize=7.5)
    axes.set_xlabel("dead units")
    axes.set_ylabel(metric)
    axes.set_xlim(-0.03, 1.03)
    share_axis(axes.xaxis)
    if metric == "accuracy":
        share_axis(axes.yaxis)
    headline(made, title)
    return made


def best_of_both(table: pd.DataFrame) -> pd.DataFrame:
    """The Pareto-optimal rows (few dead units, high metric), fewest dead first.

    Example:
        >>> arms = pd.DataFrame({"dead": [0.0, 0.1, 0.2], "metric": [0.8, 0.9, 0.7]})
        >>> best_of_both(arms).index.tolist()
        [0, 1]
    """
    ordered = table.sort_values(["dead", "metric"], ascending=[True, False])
    best = np.maximum.accumulate(ordered["metric"].to_numpy(float))
    before = np.concatenate(([-np.inf], best[:-1]))
    return ordered[ordered["metric"].to_numpy(float) > before]
