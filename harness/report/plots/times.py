"""One run over its steps: how many units are dead, when they die, and whether they stay the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from harness.detector.lifetimes import lifetimes
from harness.formats import per_cent
from harness.report.plots.base import figure, headline, need, panels, share_axis, short, step_axis
from harness.report.plots.sites import basis, choose, known, observed, share_dead
from harness.report.style import LINES, MARKERS, OKABE_ITO, current, ordered

FEW = len(OKABE_ITO)  # lines that are distinguishable; more are coloured by depth


@figure(
    "the share of units whose gate opened on no input, at each census; a line that starts high was born so, "
    "one that climbs died in training."
)
def dead_share(history: pd.DataFrame, *, title: str = "") -> Figure:
    """Dead share over time, by site and for all units together.

    Args:
        history: censuses of one run.
        title: title of the figure.

    Raises:
        ValueError: nothing was observed, or a column is missing.
    """
    rows = observed(history, "dead_share", "n")
    known(rows, "dead_share")
    share = share_dead(rows, ["step", "site"]).unstack().dropna(how="all").dropna(axis=1, how="all")
    share = share.reindex(columns=[name for name in rows["site"].unique() if name in share])
    total = share_dead(rows, ["step"]).dropna()
    made = Figure(figsize=(7.2, 3.6 if share.shape[1] <= FEW else 4.6), layout="constrained")
    axis = made.subplots()
    _lines(made, axis, share)
    ink = current().theme.ink
    axis.plot(
        total.index, total, color=ink, linewidth=2.2, label=f"all, {per_cent(total.iloc[-1])} at the end"
    )
    step_axis(axis, rows["step"].to_numpy())
    top = max(0.02, float(np.nanmax(share.to_numpy())) * 1.08)
    axis.set_ylim(0, min(1.0, top))
    share_axis(axis.yaxis)
    axis.set_ylabel("dead units")
    axis.grid(axis="y")
    axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2)
    headline(made, title, basis(rows))
    return made


@figure(
    "solid = share of units that have never been dead so far; dotted = share alive now; the gap between the "
    "two are units that came back."
)
def lifelines(history: pd.DataFrame, *, title: str = "", most: int = 8) -> Figure:
    """First lives of the units of every site: the share that is left, step by step.

    Args:
        history: censuses of one run.
        title: title of the figure.
        most: largest number of panels; the sites with most dead units are kept.

    Raises:
        ValueError: nothing was observed, or a column is missing.
    """
    rows = observed(history, "lifelines", "n")
    known_rows = known(rows, "lifelines")
    lives, alive = lifetimes(rows), 1 - share_dead(known_rows, ["step", "site"]).unstack()
    names, note = choose(known_rows, most)
    steps = np.unique(known_rows["step"].to_numpy())
    made, axes = panels(len(names), sharey=True)
    for axis, name in zip(axes, names, strict=True):
        mine = lives[lives["site"] == name]
        born = mine["born_dead"].to_numpy(dtype=bool)
        first = mine.loc[~born, "died_at"].dropna().astype(int).to_numpy()  # not of those born dead
        gone = np.searchsorted(np.sort(first), steps, side="right") + int(born.sum())
        axis.step(steps, 1 - gone / len(mine), where="post", color=OKABE_ITO[0], linewidth=1.8)
        axis.plot(alive.index, alive[name], color=OKABE_ITO[1], linestyle=":", linewidth=1.6)
        counts = int(born.sum()), int(mine["died_at"].notna().sum()), int(mine["revived_at"].notna().sum())
        axis.set_title(f"{short(name)}\n{counts[0]:,} born dead, {counts[1]:,} died, {counts[2]:,} revived")
        step_axis(axis, steps)
        share_axis(axis.yaxis)
        axis.grid(axis="y")
    axes[0].set_ylim(0, 1.02)
    axes[0].set_ylabel("share of the units")
    headline(made, title, note)
    return made


@figure(
    "solid = how much of the smaller of two dead sets lies within the other (100 % = the same units); dotted "
    "= what chance alone would give; far above it, the same units stay dead."
)
def overlap(table: pd.DataFrame, *, title: str = "", most: int = 8) -> Figure:
    """Whether the same units stay dead: overlap of dead sets over time.

    Args:
        table: result of `detector.overlap.overlap`: step, site, other, units, dead, overlap, chance.
        title: title of the figure.
        most: largest number of panels; the sites with most dead units are kept.

    Raises:
        ValueError: there are no two dead sets to compare, or a column is missing.
    """
    need(table, ("step", "site", "dead", "units", "overlap", "chance"), "overlap")
    rows = table[table["overlap"].notna()]
    if rows.empty:
        raise ValueError("overlap: no two censuses with dead units")
    dead = rows.groupby("site", sort=False)["dead"].last() / rows.groupby("site", sort=False)["units"].last()
    kept = set(dead.sort_values(ascending=False, kind="stable").index[:most])
    names = [name for name in dead.index if name in kept]
    made, axes = panels(len(names), sharey=True)
    for axis, name in zip(axes, names, strict=True):
        part = rows[rows["site"] == name]
        axis.plot(part["step"], part["overlap"], color=OKABE_ITO[0], marker="o", linewidth=1.5, clip_on=False)
        axis.plot(part["step"], part["chance"], color=current().theme.soft, linestyle=":", linewidth=1.3)
        axis.set_title(short(str(name)))
        step_axis(axis, rows["step"].to_numpy())
        share_axis(axis.yaxis)
        axis.grid(axis="y")
    axes[0].set_ylim(0, 1.02)
    axes[0].set_ylabel("overlap coefficient")
    other = table["other"].nunique() == 1
    note = f"with the dead set at step {int(table['other'].iloc[0]):,}" if other else "with the census before"
    headline(made, title, note)
    return made


def _lines(made: Figure, axis: Axes, share: pd.DataFrame) -> None:
    """A line per site; many sites are coloured by depth, with a colour bar instead of names."""
    names = [str(name) for name in share.columns]
    if len(names) <= FEW:
        for k, name in enumerate(names):
            style: dict[str, Any] = {
                "linestyle": LINES[k],
                "marker": MARKERS[k],
                "color": OKABE_ITO[k],
                "clip_on": False,
            }
            label = f"{short(name)}, {per_cent(share[name].iloc[-1])}"
            axis.plot(share.index, share[name], linewidth=1.3, label=label, **style)
        return
    colours = ordered(len(names))
    for colour, name in zip(colours, names, strict=True):
        axis.plot(share.index, share[name], color=colour, linewidth=0.9)
    worst = names[int(np.argmax(share.iloc[-1].fillna(-1).to_numpy()))]
    axis.plot(
        share.index,
        share[worst],
        color=colours[names.index(worst)],
        linewidth=2.0,
        linestyle="--",
        label=f"{short(worst)}, {per_cent(share[worst].iloc[-1])}",
    )
    mappable = ScalarMappable(cmap=ListedColormap(colours))
    mappable.set_clim(-0.5, len(names) - 0.5)
    ticks = np.unique(np.linspace(0, len(names) - 1, 6).astype(int))
    bar = made.colorbar(mappable, ax=axis, location="bottom", aspect=50, shrink=0.8, pad=0.02)
    bar.set_ticks(
        ticks.tolist(), labels=[short(names[t]) for t in ticks], rotation=20, ha="right", fontsize=7
    )
    bar.set_label("site, from the input to the output")
