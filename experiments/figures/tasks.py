"""Task by task: one line per arm, one panel per outcome, with the interval over seeds."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from experiments.contrasts import Arm
from experiments.figures.doses import doses
from experiments.verdicts import Verdict


def tasks(
    table: pd.DataFrame,
    verdict: Verdict,
    *,
    arms: Mapping[str, Arm],
    outcomes: Mapping[str, str],
    title: str = "",
) -> Figure:
    """Outcomes along the tasks.

    Args:
        table: tidy, with columns `<outcome>_<k>_share` for the tasks k from 1.
        verdict: of it.
        arms: name → its runs.
        outcomes: outcome → its name above the panel, one panel each.
        title: above the figure.
    """
    first = next(iter(outcomes))
    count = sum(f"{first}_{k}_share" in table for k in range(1, table.shape[1]))
    parts = [
        table.assign(
            task=float(k), **{f"{name}_share": table[f"{key}_{k}_share"] for key, name in outcomes.items()}
        )
        for k in range(1, count + 1)
    ]
    shares = [f"{name}_share" for name in outcomes.values()]
    return doses(
        pd.concat(parts, ignore_index=True),
        verdict,
        along="task",
        groups=arms,
        outcomes=shares,
        title=title,
        log=False,
    )
