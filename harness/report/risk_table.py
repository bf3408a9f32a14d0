"""The living units of a run that are most likely to die, as a table."""

from __future__ import annotations

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from harness.attribution.risk import AUC, BASE_RATE, risk


def risk_view(history: pd.DataFrame, step: int | None = None, most: int = 20) -> RenderableType:
    """A table in the order of risk, with a note on the reliability of order and probabilities.

    Args:
        history: the run's censuses.
        step: step of the census to use; None: the last one.
        most: largest number of listed units.

    Raises:
        ValueError: there is no such census.
    """
    found = risk(history, step)
    table = Table(box=SIMPLE_HEAD)
    for name in ("site", "unit", "risk", "state", "rate", "margin", "layer dead", "layer rate"):
        table.add_column(name, justify="left" if name in ("site", "state") else "right")
    numbers = found[["risk", "rate", "layer_dead", "layer_rate", "margin"]].to_numpy(float)
    for row, values in zip(found.head(most).itertuples(), numbers, strict=False):
        chance, rate, dead, mean = (f"{100 * share:.1f} %" for share in values[:4])
        margin = f"{values[4]:+.2f}"
        table.add_row(str(row.site), str(row.unit), chance, str(row.state), rate, margin, dead, mean)
    areas = ", ".join(f"{value:.2f} ({name})" for name, value in AUC.items())
    base = ", ".join(f"{100 * share:.1f} % ({name})" for name, share in BASE_RATE.items())
    total = len(found) + found.attrs["dead"]
    text = (
        f"{len(found):,} of {total:,} units with finite values are alive. Risk: probability that a unit "
        f"which looks so at a tenth of a training is dead at its end; base rate of the living then: {base}. "
        f"Trust the order more than the probability. Area "
        f"under the ROC curve at a tenth of the steps, on settings that were not fitted on: {areas}."
    )
    return Group(table, Text(text))
