"""A claim on several data sets: every deciding contrast with its interval on each of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from experiments.claim import DATA_SETS
from experiments.figures.parts import effect_axis, effect_line, label
from experiments.shelf import Result
from harness.report.plots.base import figure
from harness.report.style import OKABE_ITO, current

COLOURS = dict(zip(DATA_SETS, (OKABE_ITO[5], OKABE_ITO[0], OKABE_ITO[1], OKABE_ITO[2]), strict=True))
READ = (
    "a line is a contrast on one data set: the mean over seeds with its interval; circles are supported, "
    "crosses refuted, diamonds undecided. The dashed line, or the band, is the smallest effect of interest."
)


@figure(READ)
def data_sets(results: Sequence[Result]) -> Figure:
    """The forest of a claim over data sets.

    Args:
        results: judged, of one claim, in the order from top to bottom of each contrast.
    """
    verdicts = {result.data: result.verdict for result in results if result.verdict is not None}
    labels = list(dict.fromkeys(one.label for verdict in verdicts.values() for one in verdict.findings))
    rows = len(labels) * (len(verdicts) + 0.8)
    made = Figure(figsize=(7.6, max(2.2, 0.17 * rows + 1.1)), layout="constrained")
    axis = made.add_subplot()
    axis.axvline(0, color=current().theme.ink, linewidth=0.9)
    for k, name in enumerate(labels):
        for j, (data, verdict) in enumerate(verdicts.items()):
            found = [one for one in verdict.findings if one.label == name]
            if found:
                effect_line(axis, k * (len(verdicts) + 0.8) + j, found[0], COLOURS[data])
    middles = np.arange(len(labels)) * (len(verdicts) + 0.8) + (len(verdicts) - 1) / 2
    findings = {one.label: one for verdict in verdicts.values() for one in verdict.findings}
    axis.set_yticks(middles, [label(findings[name]) for name in labels])
    axis.set_ylim(rows - 0.6, -1.0)
    effect_axis(axis, findings[labels[0]].unit)
    for data in verdicts:
        axis.plot([], [], color=COLOURS[data], linewidth=2.2, label=DATA_SETS[data])
    made.legend(loc="outside upper center", ncols=len(verdicts), frameon=False)
    return made
