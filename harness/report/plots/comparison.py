"""Figures of tables from `harness.compare`: what a factor changes, and which factors matter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter

from harness.compare.frames import codes, word
from harness.report.plots.base import figure, headline, legend_above, need, share_axis
from harness.report.plots.settings import key, styles
from harness.report.style import DARK, OKABE_ITO, current

NAMES = {
    "dead": "dead at the end",
    "born_dead": "born dead",
    "died": "died in training",
    "revived": "revived",
    "accuracy": "test accuracy",
}


@figure(
    "right of the line = more than with the baseline, left = less, in percentage points; the bar is the 95 % "
    "interval over seeds, a filled mark a difference that holds after correction (p < 0.05)."
)
def effects(table: pd.DataFrame, *, factor: str = "", title: str = "", confidence: float = 0.95) -> Figure:
    """Forest plot: what each level of a factor changes, against the baseline, with its interval.

    Args:
        table: result of `harness.compare.effects`: by columns, level, baseline, outcome, pairs, diverged,
            failed, difference, low, high, p_adjusted.
        factor: its name, for the axis.
        title: title of the figure.
        confidence: confidence of the intervals.

    Raises:
        ValueError: the table is empty, or a column is missing.
    """
    need(table, ("level", "baseline", "outcome", "difference", "low", "high", "p_adjusted"), "effects")
    by = [str(name) for name in table.columns[: list(table.columns).index("level")] if name != "factor"]
    groups = _labels(table, by)
    style = styles(list(dict.fromkeys(groups)))
    outcomes = list(dict.fromkeys(table["outcome"]))
    levels = codes(table["level"])[1]
    height = max(1.8, 0.22 * len(levels) * max(1, len(style)) + 0.16 * len(levels) + 1.0)
    made = Figure(figsize=(1.6 + 1.65 * len(outcomes), min(height, 12)), layout="constrained")
    axes = made.subplots(1, len(outcomes), sharex=True, sharey=True, squeeze=False)[0]
    for axis, outcome in zip(axes, outcomes, strict=True):
        axis.axvline(0, color=current().theme.ink, linewidth=0.9)
        for group, (colour, _, marker) in style.items():
            part = table[(table["outcome"] == outcome) & (groups == group)]
            place = _offsets(len(style))[list(style).index(group)]
            y = np.array([levels.index(level) for level in part["level"]]) + place
            x = part["difference"].to_numpy(dtype=float)
            reach = np.abs(part[["low", "high"]].to_numpy(dtype=float).T - x)
            sure = part["p_adjusted"].to_numpy(dtype=float) < 1 - confidence
            axis.errorbar(x, y, xerr=reach, fmt="none", ecolor=colour, elinewidth=1.3, capsize=2)
            for filled in (True, False):
                here = sure == filled
                face = colour if filled else current().theme.paper
                axis.plot(
                    x[here], y[here], linestyle="none", marker=marker, color=colour, markerfacecolor=face
                )
        axis.set_title(NAMES.get(outcome, outcome))
        axis.grid(axis="x")
        axis.xaxis.set_major_formatter(
            FuncFormatter(lambda value, _: f"{100 * value:+.3g}" if value else "0")
        )
        axis.margins(x=0.08)
    _level_axis(axes[0], levels, table, factor)
    if len(style) > 1:
        handles = [
            axes[0].plot([], [], linestyle="none", marker=s.marker, color=s.color, label=g)[0]
            for g, s in style.items()
        ]
        made.legend(
            handles=handles, loc="outside right upper", title=", ".join(map(key, by)), alignment="left"
        )
    baseline = word(table["baseline"].iloc[0])
    headline(made, title, f"difference to {key(factor) or 'baseline'} = {baseline}, in percentage points")
    return made


@figure(
    "the longer the bar, the more of the variation between runs goes with this factor; hatched bars are "
    "interactions, where one factor's effect depends on another."
)
def ranking(table: pd.DataFrame, *, title: str = "", most: int = 15, alpha: float = 0.05) -> Figure:
    """Factors and interactions in order of the share of variance that they explain.

    Args:
        table: result of `harness.compare.ranking`: term, share, low, high, p_adjusted.
        title: title of the figure.
        most: largest number of rows.
        alpha: p below which a term is called significant.

    Raises:
        ValueError: the table is empty, or a column is missing.
    """
    need(table, ("term", "share", "low", "high", "p_adjusted"), "ranking")
    rows = table.sort_values("share", ascending=False).head(most)
    made = Figure(figsize=(7.2, 0.32 * len(rows) + 1.1), layout="constrained")
    axis = made.subplots()
    share = rows["share"].to_numpy(dtype=float)
    reach = np.clip(np.abs(rows[["low", "high"]].to_numpy(dtype=float).T - share), 0, None)
    terms = [" × ".join(key(part) for part in _parts(term)) for term in rows["term"]]
    mixed = np.array([len(_parts(term)) > 1 for term in rows["term"]])
    place = np.arange(len(rows), dtype=float)
    for together, colour, hatch in ((False, OKABE_ITO[0], ""), (True, OKABE_ITO[5], "////")):
        here = mixed == together
        edge = DARK if together else current().theme.paper
        axis.barh(place[here], share[here], color=colour, hatch=hatch, edgecolor=edge, linewidth=0.5)
    axis.errorbar(
        share, place, xerr=reach, fmt="none", ecolor=current().theme.ink, elinewidth=1.1, capsize=2.5
    )
    right = np.nanmax(np.where(np.isfinite(rows["high"]), rows["high"], share), initial=0.01)
    for y, p in zip(place, rows["p_adjusted"], strict=True):
        sure = "" if pd.isna(p) else f"p < {_ceil(p)}" if p < alpha else "not significant"
        axis.text(right * 1.04, y, sure, va="center", fontsize=8, color=current().theme.soft)
    axis.set_yticks(place, terms)
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.set_xlim(0, right * 1.25)
    share_axis(axis.xaxis)
    axis.set_xlabel("share of the variance between runs that goes with it")
    axis.grid(axis="x")
    if mixed.any():
        handles = [
            Patch(color=OKABE_ITO[0], label="a factor alone"),
            Patch(facecolor=OKABE_ITO[5], hatch="////", edgecolor=DARK, label="two factors together"),
        ]
        legend_above(axis, 2, handles=handles)
    headline(made, title)
    return made


def _parts(term: Any) -> list[str]:
    for joint in (" × ", " x ", ":", "*"):
        if joint in str(term):
            return [part.strip() for part in str(term).split(joint)]
    return [str(term)]


def _ceil(p: float) -> str:
    return next((str(limit) for limit in (0.001, 0.01) if p < limit), "0.05")


def _labels(table: pd.DataFrame, by: list[str]) -> pd.Series:
    if not by:
        return pd.Series("", index=table.index)
    return table[by].map(word).agg(", ".join, axis=1)


def _offsets(count: int) -> np.ndarray:
    return (np.arange(count) - (count - 1) / 2) * (0.7 / max(2, count))


def _level_axis(axis: Any, levels: list[Any], table: pd.DataFrame, factor: str) -> None:
    """Names of the levels, with the numbers of diverged and failed runs."""
    names = []
    for level in levels:
        mine = table[table["level"] == level]
        lost = []
        for what in ("diverged", "failed"):
            if what in table and (runs := int(mine.groupby("outcome")[what].sum().max())):
                lost.append(f"{runs} {what}")
        names.append(word(level) + (f"\n({', '.join(lost)})" if lost else ""))
    axis.set_yticks(range(len(levels)), names)
    axis.set_ylim(len(levels) - 0.45, -0.55)
    axis.set_ylabel(key(factor))
