"""Figures, one function each, from tidy frames to a matplotlib Figure."""

from __future__ import annotations

from textwrap import fill

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from harness.detector.lifetimes import one_evidence
from harness.report.style import DEAD, RC, UNOBSERVED

READ_RATES = (
    "Read it as: one line per unit, sorted by its last rate; "
    "black = the gate opened on no input at that census."
)


def rate_map(history: pd.DataFrame, *, site: str | None = None, title: str = "") -> Figure:
    """Neuron × time: the activation rate of every unit at every census.

    Args:
        history: censuses of one run.
        site: one site alone; None draws every site, one panel each.
        title: above the figure.

    Raises:
        ValueError: nothing was observed (at that site).
    """
    rows = one_evidence(history)
    rows = rows[rows["unit"] >= 0]
    names = [site] if site is not None else list(rows["site"].unique())
    if rows.empty or (site is not None and site not in set(rows["site"])):
        raise ValueError(f"rate_map: nothing was observed{f' at {site!r}' if site else ''}")
    with mpl.rc_context(RC):
        figure = Figure(figsize=(max(4.2, min(3.2 * len(names), 14)), 4.0), layout="constrained")
        axes = np.atleast_1d(figure.subplots(1, len(names), squeeze=False)).ravel()
        # without viridis' darkest part, which could be taken for black
        colours = ListedColormap(mpl.colormaps["viridis"](np.linspace(0.2, 1, 256))).with_extremes(
            bad=UNOBSERVED
        )
        image = None
        for axis, name in zip(axes, names, strict=True):
            part = rows[rows["site"] == name]
            grid = part.pivot(index="unit", columns="step", values="rate")
            dead = part.assign(dead=part["state"] == "dead").pivot(
                index="unit", columns="step", values="dead"
            )
            order = np.lexsort([grid.iloc[:, k].fillna(-1) for k in range(grid.shape[1])])[::-1]
            image = axis.imshow(
                grid.to_numpy()[order], aspect="auto", vmin=0, vmax=1, cmap=colours, interpolation="nearest"
            )
            black = np.ma.masked_equal(dead.to_numpy(dtype=float)[order], 0)
            axis.imshow(black, aspect="auto", cmap=ListedColormap([DEAD]), interpolation="nearest")
            ticks = np.unique(np.linspace(0, grid.shape[1] - 1, 5).astype(int))
            axis.set_xticks(ticks, [f"{grid.columns[t]:,}" for t in ticks])
            share = np.nanmean(dead.to_numpy(dtype=float)[:, -1])
            axis.set_title(f"{name}\n{100 * share:.1f} % dead", fontweight="normal")
            axis.set_xlabel("step")
        axes[0].set_ylabel("unit, sorted by last rate")
        assert image is not None
        figure.colorbar(image, ax=axes[-1], label="activation rate")
        figure.legend(handles=[Patch(color=DEAD, label="dead")], loc="outside upper right", ncols=2)
        if title:
            figure.suptitle(title, x=0.01, ha="left")
        read = fill(READ_RATES, int(17 * figure.get_figwidth()))
        figure.supxlabel(read, fontsize=7.5, x=0.01, ha="left", color="#444444")
    return figure
