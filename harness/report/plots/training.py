"""Training curves of a run: loss, accuracy and further metrics over the steps."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from harness.detector.grid import of_one_run
from harness.formats import per_cent
from harness.report.plots.base import figure, headline, panels, share_axis, step_axis
from harness.report.style import LINES, MARKERS, OKABE_ITO

#: Title of a panel → column → its name there. Further columns get their own panels.
PANELS = {
    "loss": {"loss": "training batches", "test_loss": "test set"},
    "accuracy": {"accuracy": "training batches", "test_accuracy": "test set"},
}
ASIDE = ("step", "epoch", "lr")
POINTS = 300  # largest number of points of a line; for more steps, means of stretches are drawn
FEW = 40  # largest number of points with markers
DECADES = 30.0  # ratio of largest to smallest loss from which the axis is logarithmic
READ = (
    "each line is one number over the steps, with its last value in the legend (of more than "
    f"{POINTS} steps, the mean of each stretch is drawn); a loss that stops falling while units die is a "
    "hint, no proof."
)


@figure(READ)
def training(steps: pd.DataFrame, *, title: str = "", most: int = 6) -> Figure:
    """Loss, accuracy and every further metric of a run over its steps.

    Args:
        steps: the table `steps` of a run.
        title: title of the figure.
        most: largest number of panels.

    Raises:
        ValueError: there is no loss or other metric.
    """
    of_one_run(steps)
    shown = _panels(steps)
    if not shown:
        raise ValueError("training: neither a loss nor another metric was given")
    made, axes = panels(min(len(shown), most), columns=3, width=2.7, height=2.0)
    for axis, (name, lines) in zip(axes, list(shown.items())[:most], strict=True):
        for k, (column, words) in enumerate(lines.items()):
            step, value = points(steps, column)
            drawn_step, drawn = _stretches(step, value)
            marker = MARKERS[k] if len(drawn) <= FEW else None
            label = f"{words}, {_value_text(name, value[-1])}" if words else _value_text(name, value[-1])
            style = {"color": OKABE_ITO[k], "linestyle": LINES[k], "linewidth": 1.3}
            axis.plot(drawn_step, drawn, marker=marker, markersize=2.5, label=label, **style)
        values = np.concatenate([line.get_ydata() for line in axis.get_lines()])
        if name == "loss" and values.min() > 0 and values.max() > DECADES * values.min():
            axis.set_yscale("log")
        if name == "accuracy":
            share_axis(axis.yaxis)
        axis.set_title(name)
        step_axis(axis, steps["step"].to_numpy())
        axis.set_xlabel("step")
        axis.grid(axis="y")
        axis.legend(loc="best", fontsize=7)
    hidden = list(shown)[most:]
    note = f"without {', '.join(hidden)}" if hidden else ""
    headline(made, title, note)
    return made


def training_words(steps: pd.DataFrame) -> str:
    """Describe the figure: first and last value of every line.

    Raises:
        ValueError: there is no loss or other metric.

    Example:
        >>> training_words(pd.DataFrame({"step": [1, 2], "loss": [2.0, 1.0], "test_accuracy": [0.2, 0.5]}))
        'Over 2 steps: loss (training batches) from 2 to 1; accuracy (test set) from 20.0 % to 50.0 %.'
    """
    parts = []
    for name, lines in _panels(steps).items():
        for column, words in lines.items():
            _, value = points(steps, column)
            of = f" ({words})" if words else ""
            parts.append(f"{name}{of} from {_value_text(name, value[0])} to {_value_text(name, value[-1])}")
    if not parts:
        raise ValueError("training: neither a loss nor another metric was given")
    return f"Over {int(steps['step'].max()):,} steps: {'; '.join(parts)}."


def points(steps: pd.DataFrame, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps at which a value exists and is finite, and the values."""
    value = steps[column].to_numpy(dtype=float)
    good = np.isfinite(value)
    return steps["step"].to_numpy()[good], value[good]


def _panels(steps: pd.DataFrame) -> dict[str, dict[str, str]]:
    """Title → column → words, for the columns with numbers."""
    taken = {column for lines in PANELS.values() for column in lines}
    own = [str(name) for name in steps if name not in taken and name not in ASIDE]
    own = [name for name in own if pd.api.types.is_numeric_dtype(steps[name])]
    found = {**PANELS, **{name: {name: ""} for name in own}}
    shown = {
        title: {column: words for column, words in lines.items() if _is_given(steps, column)}
        for title, lines in found.items()
    }
    return {title: lines for title, lines in shown.items() if lines}


def _is_given(steps: pd.DataFrame, column: str) -> bool:
    return column in steps and len(points(steps, column)[0]) > 0


def _stretches(step: np.ndarray, value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most POINTS points: the mean of each stretch, at its last step."""
    if len(step) <= POINTS:
        return step, value
    cuts = np.linspace(0, len(step), POINTS + 1).astype(int)
    means = np.add.reduceat(value, cuts[:-1]) / np.diff(cuts)
    return step[cuts[1:] - 1], means


def _value_text(name: str, value: float) -> str:
    return per_cent(value) if name == "accuracy" else f"{value:.4g}"
