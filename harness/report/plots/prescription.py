"""What cures cost and bring: the metric against the dead share."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from harness.report.plots.base import figure, headline, need, share_axis
from harness.report.style import OKABE_ITO, current

NAMED = 8  # arms that are named on the figure, the best ones


@figure(
    "up = a better metric, left = fewer dead units; filled marks were trained to the last round, hollow ones "
    "for fewer steps. No cure of the last round is better in both than those on the line."
)
def trade_off(table: pd.DataFrame, *, metric: str = "accuracy", title: str = "") -> Figure:
    """Scatter plot: the mean metric of every arm of a prescription against its mean dead share.

    Args:
        table: of a `harness.Prescription`.
        metric: what was judged by.
        title: above the figure.

    Raises:
        ValueError: the table is empty, or a column is missing.
    """
    need(table, ("cure", "steps", "metric", "dead"), "trade_off")
    made = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = made.subplots()
    last = table[table["steps"].eq(table["steps"].max())]
    front = best_of_both(last)
    axes.step(front["dead"], front["metric"], where="post", color=current().theme.soft, linewidth=1, zorder=1)
    for part, filled in ((table.drop(last.index), False), (last, True)):
        face = OKABE_ITO[0] if filled else "none"
        axes.scatter(part["dead"], part["metric"], s=30, facecolors=face, edgecolors=OKABE_ITO[0], zorder=2)
    untouched = last[last["cure"].astype(str).str.startswith("as it was")]
    axes.scatter(untouched["dead"], untouched["metric"], s=70, marker="X", color=OKABE_ITO[1], zorder=3)
    for _, row in pd.concat([untouched.head(1), last.drop(untouched.index)]).head(NAMED).iterrows():
        left = float(row["dead"]) > 0.6
        axes.annotate(
            str(row["cure"]),
            (float(row["dead"]), float(row["metric"])),
            xytext=(-6 if left else 6, 4),
            textcoords="offset points",
            fontsize=7,
            ha="right" if left else "left",
        )
    axes.set_xlabel("dead units")
    axes.set_ylabel(metric)
    axes.set_xlim(-0.03, 1.03)
    share_axis(axes.xaxis)
    if metric == "accuracy":
        share_axis(axes.yaxis)
    headline(made, title)
    return made


def best_of_both(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that no other beats in both, fewest dead first.

    Example:
        >>> arms = pd.DataFrame({"dead": [0.0, 0.1, 0.2], "metric": [0.8, 0.9, 0.7]})
        >>> best_of_both(arms).index.tolist()
        [0, 1]
    """
    ordered = table.sort_values(["dead", "metric"], ascending=[True, False])
    best = np.maximum.accumulate(ordered["metric"].to_numpy(float))
    before = np.concatenate(([-np.inf], best[:-1]))
    return ordered[ordered["metric"].to_numpy(float) > before]
