"""The units of a run that are alive and most likely to die, as a table."""

from __future__ import annotations

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from harness.attribution.risk import AUC, risk


def risk_view(history: pd.DataFrame, step: int | None = None, most: int = 20) -> RenderableType:
    """A table in the order of risk, and how far that order can be trusted.

    Args:
        history: the run's censuses.
        step: of the census that is read; None: the last one.
        most: units that are listed.

    Raises:
        ValueError: there is no such census.
    """
    found = risk(history, step)
    alive = found[found["state"] != "dead"]
    table = Table(box=SIMPLE_HEAD)
    for name in ("site", "unit", "state", "rate", "margin", "layer dead", "layer rate"):
        table.add_column(name, justify="left" if name in ("site", "state") else "right")
    numbers = alive[["rate", "layer_dead", "layer_rate", "margin"]].to_numpy(float)
    for row, values in zip(alive.head(most).itertuples(), numbers, strict=False):
        rate, dead, mean = (f"{100 * share:.1f} %" for share in values[:3])
        table.add_row(str(row.site), str(row.unit), str(row.state), rate, f"{values[3]:+.2f}", dead, mean)
    told = ", ".join(f"{value:.2f} ({name})" for name, value in AUC.items())
    text = (
        f"{len(alive):,} of {len(found):,} units are alive; the order, not a probability. Area under the ROC "
        f"curve at a tenth of the steps, on settings that were not fitted on: {told}."
    )
    return Group(table, Text(text))
