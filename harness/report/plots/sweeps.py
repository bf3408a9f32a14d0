"""Figures of tables from `harness.compare`: phase diagrams, dose–response curves and survival."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import NullLocator

from harness.compare.frames import codes, word
from harness.compare.survivors import enough
from harness.formats import per_cent
from harness.report.plots.base import figure, headline, legend_above, need, share_axis, step_axis
from harness.report.plots.comparison import NAMES
from harness.report.plots.settings import key, logarithmic, styles
from harness.report.style import current, shares, text_on


@figure(
    "one cell per combination of the two settings, the number is the mean over its runs; hatched = every run "
    "diverged or failed, so there is no number; a small ×2 = two of its runs did; in brackets: fewer than "
    "half of its runs have a result; empty = not run."
)
def phase(table: pd.DataFrame, *, outcome: str = "dead", title: str = "") -> Figure:
    """Phase diagram: the outcome over two settings; cells without a result are hatched, never 0 %.

    Args:
        table: result of `harness.compare.phase`: x, y (the first two columns), mean, runs, diverged, failed.
        outcome: its name, for the colour bar.
        title: title of the figure.

    Raises:
        ValueError: the table is empty, or a column is missing.
    """
    need(table, ("mean", "runs", "diverged", "failed"), "phase")
    x, y = (str(name) for name in table.columns[:2])
    (columns, across), (rows, up) = codes(table[x]), codes(table[y])
    width, height = 0.74 * len(across) + 2.6, 0.5 * len(up) + 1.5
    made = Figure(figsize=(min(max(width, 4.4), 12), min(max(height, 2.4), 9)), layout="constrained")
    axis = made.subplots()
    colours, norm = shares(), Normalize(0, 1)
    numbers = len(across) <= 14
    for i, j, row in zip(columns.tolist(), rows.tolist(), table.to_dict("records"), strict=True):
        if not row["runs"]:
            axis.text(i, j, "not run", ha="center", va="center", fontsize=7, color=current().theme.soft)
            continue
        lost = int(row["diverged"]) + int(row["failed"])
        gone = lost + int(row.get("unfinished", 0))
        if pd.isna(row["mean"]):
            look = {"facecolor": "none", "hatch": "////", "edgecolor": current().theme.soft, "linewidth": 0}
            axis.add_patch(Rectangle((i - 0.5, j - 0.5), 1, 1, **look))
            what = "failed" if not int(row["diverged"]) else "diverged"
            box = {"facecolor": current().theme.paper, "edgecolor": "none", "pad": 1.0}
            axis.text(i, j, what if lost else "no value", ha="center", va="center", fontsize=7, bbox=box)
            continue
        colour = colours(norm(row["mean"]))
        axis.add_patch(
            Rectangle((i - 0.5, j - 0.5), 1, 1, facecolor=colour, edgecolor="none", antialiased=False)
        )
        ink = text_on(colour)
        if numbers:
            number = f"{100 * row['mean']:.0f}"
            sound = enough(int(row["runs"]) - gone, int(row["runs"]))
            axis.text(i, j, number if sound else f"({number})", ha="center", va="center", color=ink)
        if lost:
            axis.text(i + 0.46, j + 0.42, f"×{lost}", ha="right", va="top", fontsize=7, color=ink)
    axis.set_xlim(-0.5, len(across) - 0.5)
    axis.set_ylim(-0.5, len(up) - 0.5)
    axis.set_xticks(range(len(across)), [word(v) for v in across], rotation=90 if len(across) > 14 else 0)
    axis.set_yticks(range(len(up)), [word(v) for v in up])
    axis.set_xlabel(key(x))
    axis.set_ylabel(key(y))
    axis.spines[["top", "right"]].set_visible(True)
    label = f"{NAMES.get(outcome, outcome)}, %"
    bar = made.colorbar(ScalarMappable(norm, colours), ax=axis, label=label, aspect=18)
    bar.set_ticks([0, 0.25, 0.5, 0.75, 1], labels=["0", "25", "50", "75", "100"])
    headline(made, title, f"mean over {_runs(table)} per cell")
    return made


@figure(
    "how the share changes along the setting; the bar is the interval over seeds, the dashed vertical line "
    "the value at which half of the units are dead, if there is one, and the bar at the bottom its interval."
)
def dose_response(
    table: pd.DataFrame,
    critical: pd.DataFrame | None = None,
    *,
    axis: str = "",
    outcome: str = "dead",
    title: str = "",
) -> Figure:
    """The outcome along a numeric setting, one line per other setting, with critical values.

    Args:
        table: result of `harness.compare.dose_response`: setting, the axis, mean, low, high, runs, diverged.
        critical: result of `harness.compare.critical`: setting, critical, low, high; rows with something
            `missing` are not drawn.
        axis: name of the numeric column; by default the one before `mean`.
        outcome: its name.
        title: title of the figure.

    Raises:
        ValueError: the table is empty, or a column is missing.
    """
    need(table, ("setting", "mean", "low", "high", "runs", "diverged"), "dose_response")
    axis = axis or str(table.columns[list(table.columns).index("mean") - 1])
    need(table, (axis,), "dose_response")
    style = styles(list(dict.fromkeys(table["setting"])))
    made = Figure(figsize=(7.6, 4.0), layout="constrained")
    board = made.subplots()
    logs = logarithmic(table[axis].to_numpy(dtype=float))
    for k, (setting, look) in enumerate(style.items()):
        part = table[table["setting"] == setting].sort_values(axis)
        measured = part[part["mean"].notna()]
        x = measured[axis].to_numpy(dtype=float)
        mean = measured["mean"].to_numpy(dtype=float)
        reach = np.clip(np.abs(measured[["low", "high"]].to_numpy(dtype=float).T - mean), 0, None)
        board.errorbar(x, mean, yerr=reach, label=setting, capsize=2.5, elinewidth=0.9, **look._asdict())
        if len(style) <= 4:
            _lost(board, part, axis, k, look.color)
    if len(style) > 4:
        _lost(
            board, table.groupby(axis)[["runs", "diverged"]].sum().reset_index(), axis, 0, current().theme.ink
        )
    if logs:
        board.set_xscale("log")
    doses = np.unique(table[axis].to_numpy(dtype=float))
    if len(doses) <= 9:
        board.set_xticks(doses, [word(dose) for dose in doses])
        board.xaxis.set_minor_locator(NullLocator())
    found = critical if critical is not None else pd.DataFrame(columns=["setting", "critical", "low", "high"])
    drawn = found["critical"].notna()
    if "missing" in found:
        drawn &= found["missing"].eq("")  # a line based on too few runs is not drawn
    for k, row in enumerate(found[drawn].to_dict("records")):
        colour = style[row["setting"]].color if row["setting"] in style else current().theme.soft
        board.axvline(row["critical"], color=colour, linestyle="--", linewidth=0.9)
        if np.isfinite([row["low"], row["high"]]).all():
            foot = 0.02 * k - 0.005
            board.plot([row["low"], row["high"]], [foot, foot], color=colour, linewidth=3, alpha=0.5)
    board.set_ylim(-0.02, 1.02)
    share_axis(board.yaxis)
    board.grid(axis="y")
    board.set_xlabel(key(axis))
    board.set_ylabel(NAMES.get(outcome, outcome))
    if len(style) > 1:
        made.legend(loc="outside right upper", alignment="left")
    lost = (table["diverged"] > 0).any()
    headline(made, title, "above the axes: diverged of all runs, which are in no mean" if lost else "")
    return made


@figure(
    "the share of units, alive at the start, that have not died up to that step; the lower the line, the "
    "more died, the band is the interval over seeds."
)
def survival(table: pd.DataFrame, *, title: str = "") -> Figure:
    """Kaplan-Meier curves of the units of each setting.

    Args:
        table: result of `harness.compare.survival`: setting, step, survival, low, high, at_risk, runs.
        title: title of the figure.

    Raises:
        ValueError: the table is empty, or a column is missing.
    """
    need(table, ("setting", "step", "survival", "low", "high", "runs"), "survival")
    return _curves(table, "survival", "units not yet died", title, steps=True)


@figure(
    "the share of dead units over the steps, revivals included: the mean over the seeds of each setting, "
    "with the interval as a band."
)
def dead_over_time(table: pd.DataFrame, *, title: str = "") -> Figure:
    """Dead share over time, one line per setting.

    Args:
        table: result of `harness.compare.dead_over_time`: setting, step, dead, low, high, runs.
        title: title of the figure.

    Raises:
        ValueError: the table is empty, or a column is missing.
    """
    need(table, ("setting", "step", "dead", "low", "high", "runs"), "dead_over_time")
    return _curves(table, "dead", "dead units", title, steps=False)


def _lost(board: Axes, part: pd.DataFrame, axis: str, line: int, colour: Any) -> None:
    """Write how many runs diverged at each value above the axes."""
    place: Any = {"xycoords": ("data", "axes fraction"), "ha": "center", "annotation_clip": False}
    for value, runs, gone in part.loc[part["diverged"] > 0, [axis, "runs", "diverged"]].to_numpy():
        board.annotate(
            f"{gone:.0f}/{runs:.0f}", (value, 1.02 + 0.05 * line), fontsize=7, color=colour, **place
        )


def _curves(table: pd.DataFrame, column: str, label: str, title: str, *, steps: bool) -> Figure:
    """A line with its interval per setting, over steps; as a step function if `steps`."""
    style = styles(list(dict.fromkeys(table["setting"])))
    made = Figure(figsize=(7.6, 4.0), layout="constrained")
    board = made.subplots()
    every = max(1, table.groupby("setting").size().max() // 8)
    for k, (setting, look) in enumerate(style.items()):
        part = table[table["setting"] == setting].sort_values("step")
        x = part["step"].to_numpy(dtype=float)
        marks: Any = {"markevery": (k % every, every), "clip_on": False, **look._asdict()}
        drawstyle = "steps-post" if steps else "default"
        name = f"{setting} ({_facts(part)})"
        board.plot(x, part[column].to_numpy(dtype=float), label=name, drawstyle=drawstyle, **marks)
        low, high = part[["low", "high"]].to_numpy(dtype=float).T
        fill = "post" if steps else None
        board.fill_between(x, low, high, step=fill, color=look.color, alpha=0.15, linewidth=0)
    step_axis(board, table["step"].to_numpy(dtype=float))
    ends = table[[column, "low", "high"]].to_numpy(dtype=float)
    lowest = float(np.nanmin(ends))
    if steps:  # if hardly any unit died, the axis is truncated, and its label says so
        board.set_ylim(np.floor(50 * lowest - 0.5) / 50 if lowest > 0.8 else 0, 1.0)
        label += f" (axis from {per_cent(board.get_ylim()[0], 0)})" if lowest > 0.8 else ""
    else:
        board.set_ylim(0, min(1.0, max(0.02, float(np.nanmax(ends)) * 1.05)))
    share_axis(board.yaxis)
    board.grid(axis="y")
    board.set_ylabel(label)
    legend_above(board, 2 if len(style) <= 8 else 3)
    headline(made, title)
    return made


def _facts(part: pd.DataFrame) -> str:
    """The number of runs behind a curve, and the share of their units born dead."""
    text = f"{int(part['runs'].max()):,} runs"
    if "born_dead" not in part or not part["units"].iloc[0]:
        return text
    return f"{text}, {per_cent(part['born_dead'].iloc[0] / part['units'].iloc[0])} born dead"


def _runs(table: pd.DataFrame) -> str:
    runs = table.loc[table["runs"].gt(0), "runs"]
    low, high = (int(runs.min()), int(runs.max())) if len(runs) else (0, 0)
    return f"{low:,} run{'s' * (low != 1)}" if low == high else f"{low:,} to {high:,} runs"
