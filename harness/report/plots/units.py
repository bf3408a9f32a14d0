"""Every unit of one run: rates over time, final rates, states, gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from harness.detector.grid import SILENT
from harness.detector.verdict import last_census
from harness.formats import per_cent
from harness.report.plots.base import figure, headline, legend_above, panels, share_axis, short
from harness.report.plots.sites import basis, choose, is_scan, known, observed, share_dead
from harness.report.rate_grid import READ, rate_grid
from harness.report.style import DARK, DEAD, STATES, UNOBSERVED, current, rates, text_on

BINS = np.linspace(0.0, 1.0, 31)  # bins of rate histograms, fixed so that runs can be compared


@figure(READ)
def rate_map(history: pd.DataFrame, *, site: str | None = None, title: str = "", most: int = 8) -> Figure:
    """Neuron × time: the activation rate of every unit at every census, sorted by the last rate.

    Args:
        history: censuses of one run.
        site: a single site; None draws a panel for each.
        title: title of the figure.
        most: largest number of panels; the sites with most dead units are kept.

    Raises:
        ValueError: nothing was observed (at that site), or a column is missing.
    """
    rows = observed(history, "rate_map", "rate")
    if site is not None:
        rows = rows[rows["site"] == site]
        if rows.empty:
            raise ValueError(f"rate_map: nothing was observed at {site!r}")
    names, note = choose(rows, most)
    lines = [line for line in (title, note) if line]
    made, axes, beside = _frame(len(names), 0.2 * len(lines))
    for axis, name in zip(axes, names, strict=True):
        part = rows[rows["site"] == name]
        columns = [part[key].to_numpy() for key in ("step", "unit", "rate")]
        grid, dead, steps = rate_grid(
            *columns, dead=(part["state"] == "dead").to_numpy(), known=known_mask(part)
        )
        picture = rates()(np.ma.masked_invalid(grid), bytes=True)
        picture[dead] = _rgba(DEAD)
        axis.imshow(picture, aspect="auto", interpolation="nearest")
        ticks = np.unique(np.linspace(0, len(steps) - 1, 4).astype(int))
        axis.set_xticks(ticks, [f"{steps[t]:,}" for t in ticks])
        axis.set_yticks([0, len(grid) - 1], ["1", f"{len(grid):,}"])
        axis.spines[["top", "right"]].set_visible(True)
        axis.set_title(f"{short(name)}\n{_dead_share(_at(rows, name))}")
    made.text(0.1 / made.get_figwidth(), 0.5, "unit, sorted by last rate", rotation=90, va="center")
    made.text(0.5, 0.07 / made.get_figheight(), "step of the census", ha="center", va="bottom")
    bar = made.colorbar(ScalarMappable(cmap=rates()), cax=beside, label="activation rate")
    bar.set_ticks([0, 0.5, 1], labels=["0 %", "50 %", "100 %"])
    handles = [Patch(facecolor=DEAD, edgecolor=current().theme.soft, label="dead")]
    if (~known_mask(rows)).any():
        handles.append(Patch(color=UNOBSERVED, label="no value"))
    beside.legend(handles=handles, loc="lower left", bbox_to_anchor=(-0.6, 1.0), handlelength=1.2)
    if lines:
        made.text(0.01, 1 - 0.08 / made.get_figheight(), "\n".join(lines), va="top", fontsize=9.5)
    return made


@figure(
    "how the units of a layer are spread over activation rates: bars at the last census, the dashed outline "
    "at the first; the bar left of 0 counts the dead."
)
def rate_histogram(history: pd.DataFrame, *, title: str = "", most: int = 8) -> Figure:
    """Rates of the units of every site at the last census, over those at the first; fixed bins.

    Args:
        history: censuses of one run, or one census.
        title: title of the figure.
        most: largest number of panels; the sites with most dead units are kept.

    Raises:
        ValueError: nothing was observed, or a column is missing.
    """
    rows = observed(history, "rate_histogram", "rate", "n")
    names, note = choose(rows, most)
    made, axes = panels(len(names), sharey=True)
    dead_colour = current().theme.dead
    for axis, name in zip(axes, names, strict=True):
        part = rows[rows["site"] == name]
        last, first = _at(rows, name), part[part["step"] == part["step"].min()]
        alive, dead = _spread(last)
        axis.stairs(alive, BINS, fill=True, color=STATES["active"][0], alpha=0.9)
        edge = current().theme.soft
        axis.bar(-0.06, dead, 0.06, color=dead_colour, edgecolor=edge, linewidth=0.8)
        axis.annotate(f"{100 * dead:.0f} %", (-0.06, dead), (0, 2), textcoords="offset points", ha="center")
        if last["step"].iloc[0] != first["step"].iloc[0]:
            before, gone = _spread(first)
            ink = current().theme.ink
            axis.stairs(before, BINS, color=ink, linestyle="--", linewidth=0.9)
            axis.plot([-0.1, -0.02], [gone, gone], color=ink, linestyle="--", linewidth=0.9)
        axis.set_title(f"{short(name)}\n{_dead_share(last)}")
        axis.set_xticks([-0.06, 0, 0.5, 1], ["dead", "0", "50 %", "100 %"])
        axis.get_xticklabels()[0].set_horizontalalignment("right")
        axis.set_xlim(-0.18, 1.02)
        axis.set_xlabel("activation rate")
        share_axis(axis.yaxis)
        axis.grid(axis="y")
    axes[0].set_ylim(0, min(1.12, axes[0].get_ylim()[1] * 1.1))
    axes[0].set_ylabel("share of the units")
    headline(made, title, " · ".join(filter(None, (basis(last_census(rows)), note))))
    return made


@figure(
    "one bar per layer, from the input at the top to the output; the longer the first part, the more units "
    "are dead; starved ones open their gate and get no gradient."
)
def state_bars(history: pd.DataFrame, *, title: str = "") -> Figure:
    """Shares of the units in each state, layer by layer, at the last census.

    Args:
        history: censuses of one run, or one census; starved units come from the training stream, since a
            probe has no gradients.
        title: title of the figure.

    Raises:
        ValueError: nothing was observed, or a column is missing.
    """
    rows = observed(history, "state_bars", "n")
    last = last_census(rows)
    last = last.assign(state=_with_starved(last, history))
    names = list(last["site"].unique())
    count = last.groupby(["site", "state"], sort=False).size().unstack(fill_value=0).reindex(names)
    total = count.sum(axis=1).to_numpy()
    made = Figure(figsize=(7.6, max(1.9, 0.34 * len(names) + 1.3)), layout="constrained")
    axis = made.subplots()
    left = np.zeros(len(names))
    for state, (colour, hatch) in STATES.items():
        if state not in count:
            continue
        share, theme = count[state].to_numpy() / total, current().theme
        edge, text = (theme.soft, theme.on_dead) if state == "dead" else (DARK, text_on(colour))
        colour = theme.dead if state == "dead" else colour
        bars = axis.barh(names, share, left=left, color=colour, hatch=hatch, edgecolor=edge, linewidth=0.5)
        bars.set_label(state.replace("_", " "))
        labels = [f"{100 * s:.0f}" if s >= 0.045 and not hatch else "" for s in share]
        axis.bar_label(bars, labels, label_type="center", color=text)
        left += share
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.set_yticks(range(len(names)), [f"{short(n)} ({t:,})" for n, t in zip(names, total, strict=True)])
    axis.set_xlim(0, 1)
    share_axis(axis.xaxis)
    at = "" if is_scan(last) else f" at step {int(last['step'].iloc[0]):,}"
    axis.set_xlabel(f"share of the units{at} (number of units in brackets)")
    legend_above(axis, 7)
    headline(made, title, basis(last))
    return made


@figure(
    "one point per unit; the strip at the bottom holds units whose weights got no gradient in the last step, "
    "at the left are those that hardly ever open."
)
def gradients(history: pd.DataFrame, *, title: str = "") -> Figure:
    """Gradient norm of each unit's incoming weights over its activation rate, at the last training census.

    Args:
        history: censuses of one run, or one census, with gradients.
        title: title of the figure.

    Raises:
        ValueError: no gradient was recorded, or a column is missing.
    """
    rows = observed(history[history["evidence"] == "stream"], "gradients", "rate", "grad_norm")
    rows = known(rows)
    rows = rows[np.isfinite(rows["grad_norm"].to_numpy(dtype=float))]
    if rows.empty:
        raise ValueError("gradients: no gradient norm was recorded (no step, or gradients were off)")
    rows = last_census(rows)
    rate, norm = rows["rate"].to_numpy(dtype=float), rows["grad_norm"].to_numpy(dtype=float)
    positive = norm[norm > 0]
    low = positive.min() if len(positive) else 1e-3
    floor = 10 ** (np.floor(np.log10(low)) - 0.5)
    made = Figure(figsize=(6.4, 4.0), layout="constrained")
    axis = made.subplots()
    axis.axhspan(floor / 2.2, floor * 1.5, color=current().theme.grid, alpha=0.6, linewidth=0)
    shapes = {"dead": "x", "starved": "v", "rare": "D", "active": "o", "always_on": "^"}
    heavy = len(rows) > 1500  # so many points take less space as pixels
    for state, marker in shapes.items():
        here = rows["state"].to_numpy() == state
        if here.any():
            colour = current().theme.ink if state == "dead" else STATES[state][0]
            y = np.where(norm[here] > 0, norm[here], floor)
            label = f"{state.replace('_', ' ')} ({here.sum():,})"
            style: dict[str, Any] = {"marker": marker, "s": 16, "alpha": 0.75, "rasterized": heavy}
            style |= {} if marker == "x" else {"edgecolors": "none"}
            axis.scatter(rate[here], y, color=colour, label=label, clip_on=False, **style)
    axis.set_yscale("log")
    axis.set_ylim(floor / 2.2, positive.max() * 2 if len(positive) else 1)
    if not len(positive):
        axis.set_yticks([])
        axis.text(0.5, 0.5, "no unit got any gradient", ha="center", transform=axis.transAxes)
    axis.annotate("exactly 0", (1.01, floor), xycoords=("axes fraction", "data"), va="center", fontsize=8)
    axis.set_xlim(-0.02, 1.02)
    share_axis(axis.xaxis)
    axis.set_xlabel(f"activation rate on the training inputs up to step {int(rows['step'].iloc[0]):,}")
    axis.set_ylabel("gradient norm of incoming weights")
    axis.grid()
    legend_above(axis, 5)
    headline(made, title)
    return made


def _frame(count: int, above: float) -> tuple[Figure, list[Axes], Axes]:
    """Panels and the axes of the colour bar, placed in inches.

    A sweep draws hundreds of these, and computing a layout takes longer than everything else.
    """
    columns = min(count, 4)
    rows = -(-count // columns)
    width, height, gap, left, right = 2.0, 2.3, 0.5, 0.65, 1.0
    across = left + columns * width + (columns - 1) * gap + 0.15 + right
    up = 0.5 + rows * height + (rows - 1) * 0.75 + 0.5 + above
    made = Figure(figsize=(across, up))
    axes = []
    for k in range(count):
        x, y = left + (k % columns) * (width + gap), 0.5 + (rows - 1 - k // columns) * (height + 0.75)
        axes.append(made.add_axes((x / across, y / up, width / across, height / up)))
    y, tall = 0.5 + (rows - 1) * (height + 0.75), height
    beside = made.add_axes(((across - right) / across, y / up, 0.13 / across, tall / up))
    return made, axes, beside


def known_mask(rows: pd.DataFrame) -> np.ndarray:
    """Which rows are informative about their unit."""
    return ~rows["state"].isin(SILENT).to_numpy()


def _spread(census: pd.DataFrame) -> tuple[np.ndarray, float]:
    """Shares of the observed units in every bin, and the share of dead ones, which are in none."""
    alive = known(census)
    alive = alive[alive["state"] != "dead"]
    counts, _ = np.histogram(alive["rate"].to_numpy(dtype=float), BINS)
    dead = share_dead(census).item()
    return counts / max(1, int((census["state"] != "unobserved").sum())), 0.0 if pd.isna(dead) else dead


def _at(rows: pd.DataFrame, site: str) -> pd.DataFrame:
    """A site in the last census of all; its own last one if it is not in that."""
    last = last_census(rows)
    last = last[last["site"] == site]
    return last_census(rows[rows["site"] == site]) if last.empty else last


def _dead_share(census: pd.DataFrame) -> str:
    share = share_dead(census).item()
    if pd.isna(share):
        return "not finite" if (census["state"] == "non_finite").any() else "not observed"
    return f"{per_cent(share)} dead"


def _with_starved(last: pd.DataFrame, history: pd.DataFrame) -> np.ndarray:
    """States in a census of the probe, with units that are starved in the latest training census."""
    stream = history[(history["evidence"] == "stream") & (history["unit"] >= 0)]
    state = last["state"].to_numpy(dtype=object)
    if stream.empty or str(last["evidence"].iloc[0]) == "stream":
        return state
    stream = stream[stream["step"] == stream["step"].max()]
    starved = stream.loc[stream["state"] == "starved", ["site", "unit"]]
    hungry = pd.MultiIndex.from_frame(last[["site", "unit"]]).isin(pd.MultiIndex.from_frame(starved))
    return np.where(hungry & (state != "dead"), "starved", state)


def _rgba(colour: str) -> np.ndarray:
    return np.array([*(int(colour[k : k + 2], 16) for k in (1, 3, 5)), 255], np.uint8)
