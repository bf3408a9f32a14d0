"""What the figures of claims share: the forest of what decided, names of outcomes, marks of lost runs."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.units import Unit
from experiments.verdicts import Finding, Verdict
from harness.report.plots.base import share_axis
from harness.report.style import OKABE_ITO, current

NAMES = {
    "dead": "dead units after training",
    "born_dead": "units dead before training",
    "born_dead_1": "first layer dead before training",
    "died": "units that died in training",
    "revived": "units that revived",
    "accuracy": "test accuracy",
    "diverged": "runs that diverged",
    "test_loss": "test loss",
    "relative": "time over ReLU's",
    "gradient_ratio": "log10 (gradient, first / last layer)",
    "gradient_dormant_share": "gradient-dormant units",
    "failed_share": "trainings that failed",
    "epochs_needed": "epochs to the level",
    "epochs_early": "epochs to the lower level",
    "epochs_late": "epochs to the higher level",
    "silent_before_share": "silent before training",
    "silent_after_share": "silent after training",
    **{f"stayed_dead_{layer}_share": f"stayed dead, layer {layer}" for layer in (1, 2, 3)},
    "silent_living_after_share": "silent, living units",
    "log2_rate": "log2 (critical rate)",
    "log2_sharpness": "log2 (rate × sharpness)",
    "log2_norm": "log2 (rate × (‖x‖² + 1))",
}
SHARES = ("dead", "born_dead", "died", "revived", "accuracy", "diverged")
FACTORS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)  # ticks of ratios; between them where few would be seen
DECADES = (0.001, 0.01, 0.1, 1, 10, 100, 1000)
BETWEEN = (0.33, 0.7, 1.1, 1.2, 1.5, 3)
COLOURS = {
    "supported": OKABE_ITO[2],
    "refuted": OKABE_ITO[1],
    "mixed": OKABE_ITO[4],
    "partly open": OKABE_ITO[0],
    "undecided": "#7a828c",
}
MARKS = {"supported": "o", "refuted": "X", "undecided": "D"}
READ = (
    "a dot is one seed, the bar the mean with its 95 % interval over seeds. On the right every effect with "
    "its interval, against the smallest effect of interest (dashed line or band); pale ones decide nothing."
)


def board(
    outcomes: int, rows: float, verdict: Verdict, *, wide: float = 2.7, names: Sequence[str] = ()
) -> tuple[Figure, Any, Axes, Axes | None]:
    """A figure with one panel per outcome, and the forest.

    Args:
        outcomes: how many.
        rows: of the panels.
        verdict: for the forest.
        wide: a panel's width in inches.
        names: of a legend below the panels.

    Returns:
        Figure, panels, axes of the forest, axes of the legend (None without names).
    """
    lines = sum(label(finding).count("\n") + 1.6 for finding in (*verdict.findings, *verdict.also))
    height = max(2.7, 0.34 * rows + 1.3, 0.145 * lines + 1.4)
    widths = [*[wide] * outcomes, 3.1]
    below = 0.24 * -(-len(names) // legend_columns(names, wide * outcomes)) if names else 0.0
    height = min(height, 11.0)
    made = Figure(figsize=(sum(widths) + 0.6, height + below), layout="constrained")
    rows_of_all = [height, below][: 2 if names else 1]
    grid = made.add_gridspec(len(rows_of_all), outcomes + 1, width_ratios=widths, height_ratios=rows_of_all)
    axes = [made.add_subplot(grid[0, place]) for place in range(outcomes + 1)]
    if not names:
        return made, axes[:-1], axes[-1], None
    legend = made.add_subplot(grid[1, :-1])
    legend.axis("off")
    return made, axes[:-1], axes[-1], legend


def legend_columns(names: Sequence[str], width: float) -> int:
    """How many entries of a legend lie side by side in so many inches."""
    return max(1, int(width / (0.62 + 0.065 * max(map(len, names)))))


def forest(axis: Axes, verdict: Verdict) -> None:
    """Every deciding effect with its interval, against its margin; those that only go along are pale."""
    found: Sequence[Finding] = [*verdict.findings, *verdict.also]
    deciding = len(verdict.findings)
    axis.axvline(0, color=current().theme.ink, linewidth=0.9)
    for y, finding in enumerate(found):
        effect_line(axis, y, finding, COLOURS[finding.word], 1.0 if y < deciding else 0.45)
    axis.set_yticks(range(len(found)), [label(finding) for finding in found], fontsize=7.5)
    axis.yaxis.tick_right()
    axis.spines["right"].set_visible(False)
    axis.set_ylim(len(found) - 0.4, -0.6)
    effect_axis(axis, verdict.findings[0].unit)
    axis.set_title(f"verdict: {verdict.word}", color=COLOURS[verdict.word], fontweight="bold")


def effect_line(axis: Axes, y: float, finding: Finding, colour: str, alpha: float = 1.0) -> None:
    """One contrast: its margin, the effect with its interval, the word as a mark."""
    scale = finding.unit.scale
    margin = finding.margin * scale
    if finding.within:
        axis.fill_betweenx([y - 0.4, y + 0.4], -abs(margin), abs(margin), color="#7a828c", alpha=0.18)
    else:
        axis.plot([margin, margin], [y - 0.4, y + 0.4], color="#7a828c", linestyle="--", linewidth=1.2)
    if np.isnan(finding.effect):
        axis.text(0, y, " no pair has the outcome", va="center", fontsize=7.5)
        return
    ends = [finding.low * scale, finding.high * scale]
    if not np.isnan(ends).any():
        axis.plot(ends, [y, y], color=colour, linewidth=1.8, alpha=alpha, solid_capstyle="butt")
    axis.plot(finding.effect * scale, y, MARKS[finding.word], color=colour, markersize=5.5, alpha=alpha)


def effect_axis(axis: Axes, unit: Unit) -> None:
    """The axis of effects; factors where they are ratios."""
    axis.spines["left"].set_visible(False)
    axis.tick_params(axis="y", length=0)
    axis.margins(x=0.12)
    axis.grid(axis="x")
    axis.xaxis.set_major_locator(MaxNLocator(5))
    if unit.ratio:
        low, high = axis.get_xlim()
        factors = DECADES if high - low > 5 else FACTORS if high - low > 2.5 else (*FACTORS, *BETWEEN)
        ticks = np.array(sorted(value for value in factors if low <= np.log(value) <= high))
        axis.set_xticks(np.log(ticks), [f"×{value:g}" for value in ticks])
    axis.set_xlabel(f"effect, {unit.name}" if unit.name else "effect")


def label(finding: Finding) -> str:
    """A contrast's name in lines that fit beside the forest."""
    return fill(finding.label, 32)


def bounds(outcome: str) -> tuple[float, float]:
    """What the mean of an outcome cannot leave."""
    return (0.0, 1.0) if is_share(outcome) else (-np.inf, np.inf)


def is_share(outcome: str) -> bool:
    """Whether an outcome is a share, printed in per cent.

    Example:
        >>> is_share("dead"), is_share("failed_share"), is_share("test_loss")
        (True, True, False)
    """
    return outcome in SHARES or outcome.endswith("_share") or outcome.startswith(("dead_", "born_dead_"))


def outcome_axis(axis: Any, outcome: str, values: np.ndarray) -> None:
    """Shares in per cent from 0; other numbers as they are."""
    top = float(np.nanmax(values)) if np.isfinite(values).any() else 1.0
    set_limits = axis.axes.set_xlim if axis.axis_name == "x" else axis.axes.set_ylim
    if is_share(outcome):
        share_axis(axis)
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        set_limits(-0.02 * max(top, 0.02), max(top, 0.02) * 1.06)
    axis.set_label_text(name_of(outcome))


def name_of(outcome: str) -> str:
    """An outcome in words.

    Example:
        >>> name_of("accuracy"), name_of("sparse_share")
        ('test accuracy', 'sparse')
    """
    return NAMES.get(outcome, outcome.removesuffix("_share").replace("_", " "))
