"""Of all seeds together: estimates of pooled events, with the seed as the unit of analysis."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from experiments.contrasts import Arm, rows_of
from experiments.verdicts import Part

Estimate = Callable[[pd.DataFrame], float]  # rows of some seeds → a number, NaN where they tell nothing


def survival(died: str, at_risk: str) -> Estimate:
    """The Kaplan–Meier estimate: the share that is left after all times, of the pooled rows.

    Args:
        died: prefix of the columns with the number of events at the times 1, 2, …
        at_risk: prefix of those with the number that was at risk of them.

    Returns:
        Rows → the product over the times of 1 - events / at risk; NaN where nothing was ever at risk.

    Example:
        >>> table = pd.DataFrame({"n_1": [4, 6], "n_2": [2, 3], "d_1": [0, 1], "d_2": [1, 0]})
        >>> round(survival("d_", "n_")(table), 3)  # 9/10 × 4/5
        0.72
    """

    def estimate(rows: pd.DataFrame) -> float:
        left = np.nan
        times = sum(str(name).startswith(at_risk) for name in rows)
        for k in range(1, times + 1):
            risk, events = (float(rows[f"{name}{k}"].sum()) for name in (at_risk, died))
            if risk:
                left = (1.0 if np.isnan(left) else left) * (1 - events / risk)
        return left

    return estimate


def pooled(
    table: pd.DataFrame, estimate: Estimate, arm: Arm, target: float, *, label: str, at_least: float
) -> Part:
    """An estimate of the pooled runs of an arm against a number; its spread is that between seeds.

    One value per seed: its jackknife pseudo-value (Tukey 1958; Andersen et al. 2003 for Kaplan–Meier), which
    weighs a seed by what it tells, shifted so that their mean is the pooled estimate. Seeds that tell nothing
    are neither lost nor counted.

    Args:
        table: tidy, one row per run.
        estimate: of some rows.
        arm: its runs.
        target: what the estimate is held against.
        label: what it is about.
        at_least: asks for an excess of at least this.

    Example:
        >>> table = pd.DataFrame({"seed": [0, 1, 2], "n_1": [10, 30, 0], "d_1": [1, 0, 0]})
        >>> part = pooled(table, survival("d_", "n_"), {}, 0, label="left", at_least=0.9)
        >>> part.differences.round(3), round(part.arm, 3)
        (array([0.925, 1.025]), 0.975)
    """
    rows = rows_of(table, arm)
    telling = [seed for seed, mine in rows.groupby("seed") if not np.isnan(estimate(mine))]
    rows = rows[rows["seed"].isin(telling)]
    whole, n = estimate(rows), len(telling)
    others = np.array([estimate(rows[rows["seed"] != seed]) for seed in telling])
    values = n * whole - (n - 1) * others if n > 1 else np.full(n, whole)
    if n:
        values += whole - values.mean() - target
    return Part(label, values, at_least, arm=whole, baseline=float(target))
