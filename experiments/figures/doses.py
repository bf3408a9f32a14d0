"""Along a dose: one line per group, one panel per outcome, with the interval over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from experiments.contrasts import Arm, rows_of
from experiments.figures.parts import (
    READ,
    board,
    bounds,
    forest,
    legend_columns,
    name_of,
    outcome_axis,
)
from experiments.verdicts import Verdict
from harness.compare.bootstrap import mean_interval
from harness.compare.frames import word
from harness.report.plots.base import figure, headline
from harness.report.plots.settings import key, styles
from harness.report.style import current

WIDE = 3.1  # inches of a panel


@figure(
    "lines are means over the seeds, bars their 95 % intervals; above the axes how many runs diverged. "
    + READ.partition(". ")[2]
)
def doses(
    table: pd.DataFrame,
    verdict: Verdict,
    *,
    along: str,
    groups: Mapping[str, Arm] | None = None,
    outcomes: Sequence[str] = ("dead", "accuracy"),
    title: str = "",
    overlay: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None,
    log: bool | None = None,
) -> Figure:
    """Outcomes along a number, one line per group, and what decided.

    Args:
        table: tidy.
        verdict: of it.
        along: column of the number.
        groups: name → its runs; None: one group of all.
        outcomes: one panel each.
        title: above the figure.
        overlay: name → (x, y) of a curve that theory gives for the first outcome.
        log: whether the number's axis is logarithmic; None: if all are positive and span a factor of ten.

    Raises:
        ValueError: a group without runs.
    """
    groups = groups or {"": {}}
    names = [*groups, *(overlay or {})] if len(groups) > 1 or overlay else []
    made, panels, side, below = board(len(outcomes), 6, verdict, wide=WIDE, names=names)
    x = np.unique(table[along].to_numpy(float))
    logs = bool(x[0] > 0 and x[-1] >= 10 * x[0]) if log is None else log
    for k, (axis, outcome) in enumerate(zip(panels, outcomes, strict=True)):
        style = styles(list(groups))
        every = []
        for place, (name, arm) in enumerate(groups.items()):
            part = rows_of(table, arm)
            every.append(_line(axis, part, along, outcome, name, style[name]))
            if k == 0 and "diverged" in part:
                _lost(axis, part, along, place, style[name].color)
        if k == 0 and overlay:
            for name, (at, value) in overlay.items():
                axis.plot(at, value, color=current().theme.ink, linestyle=":", linewidth=1.4, label=name)
        if logs:
            axis.set_xscale("log")
        values = np.unique(
            np.concatenate([rows_of(table, arm)[along].to_numpy(float) for arm in groups.values()])
        )
        if len(values) <= 8:
            axis.set_xticks(values, [word(value) for value in values], fontsize=7.5)
            axis.xaxis.set_minor_locator(NullLocator())
        outcome_axis(axis.yaxis, outcome, np.concatenate(every))
        axis.grid(axis="y")
        axis.set_xlabel(key(along))
        axis.set_ylabel("")
        axis.set_title(name_of(outcome), pad=6 + 9 * _lines_above(table, groups))
        if k == 0 and below is not None:
            columns = legend_columns(names, WIDE * len(outcomes))
            below.legend(*axis.get_legend_handles_labels(), loc="center left", ncols=columns, fontsize=7.5)
    forest(side, verdict)
    headline(made, title)
    return made


def _line(axis: Axes, part: pd.DataFrame, along: str, outcome: str, name: str, look: Any) -> np.ndarray:
    """Mean and interval at every value; what it spans."""
    rows = []
    numbers = pd.to_numeric(part[outcome], errors="coerce").astype(float)
    for value in np.unique(part[along].to_numpy(float)):
        mine = numbers[part[along] == value]
        seeds = mine.groupby(part.loc[mine.index, "seed"]).mean().dropna().to_numpy()
        if len(seeds):
            rows.append((value, seeds.mean(), *mean_interval(seeds, bounds=bounds(outcome))))
    if not rows:
        return np.array([])
    x, mean, low, high = np.array(rows, float).T
    reach = np.nan_to_num(np.clip([mean - low, high - mean], 0, None))
    axis.errorbar(x, mean, yerr=reach, label=name, capsize=2.2, elinewidth=0.9, **look._asdict())
    return np.concatenate([mean, high[~np.isnan(high)]])


def _lost(axis: Axes, part: pd.DataFrame, along: str, place: int, colour: Any) -> None:
    """How many runs diverged at each value, above the axes."""
    for value in np.unique(part[along].to_numpy(float)):
        gone = part.loc[part[along] == value, "diverged"] == 1
        if gone.any():
            axis.annotate(
                f"{int(gone.sum())}",
                (value, 1.01 + 0.055 * place),
                xycoords=("data", "axes fraction"),
                ha="center",
                fontsize=6.5,
                color=colour,
                annotation_clip=False,
            )


def _lines_above(table: pd.DataFrame, groups: Mapping[str, Arm]) -> int:
    if "diverged" not in table:
        return 0
    return max(
        (k + 1 for k, arm in enumerate(groups.values()) if (rows_of(table, arm)["diverged"] == 1).any()),
        default=0,
    )
