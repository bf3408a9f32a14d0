"""Contrasts: from a tidy table of runs to one difference per seed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from experiments.units import POINTS, Unit
from experiments.verdicts import Part

Arm = Mapping[str, Any]  # column → value; what is not named is averaged over


def rows_of(table: pd.DataFrame, arm: Arm) -> pd.DataFrame:
    """The runs of an arm.

    Raises:
        ValueError: a column that the table lacks, or no run has these values.

    Example:
        >>> table = pd.DataFrame({"optim.lr": [0.1, 1.0], "seed": [0, 0], "dead": [0.0, 0.5]})
        >>> rows_of(table, {"optim.lr": 1})["dead"].tolist()
        [0.5]
    """
    chosen = np.ones(len(table), bool)
    for column, value in arm.items():
        if column not in table:
            raise ValueError(f"arm: there is no column {column!r}; it has {', '.join(map(str, table))}")
        chosen &= np.array([_same(cell, value) for cell in table[column]])
    if not chosen.any():
        said = ", ".join(f"{column}={value}" for column, value in arm.items())
        raise ValueError(f"arm: no run has {said}")
    return table[chosen]


def per_seed(table: pd.DataFrame, outcome: str, arm: Arm) -> pd.Series:
    """The outcome of an arm, one number per seed: mean over its runs, NaN where one of them has none.

    A mean over what is left when a run diverged would be of other settings than its pair's: it is no value.

    Raises:
        ValueError: no such outcome or arm.
    """
    if outcome not in table:
        raise ValueError(f"outcome: there is no column {outcome!r}; it has {', '.join(map(str, table))}")
    rows = rows_of(table, arm)
    values = pd.to_numeric(rows[outcome], errors="coerce").astype(float)
    return values.groupby(rows["seed"]).agg(lambda cell: cell.mean(skipna=False))


def contrast(
    table: pd.DataFrame,
    outcome: str,
    arm: Arm,
    baseline: Arm,
    *,
    label: str,
    at_least: float | None = None,
    at_most: float | None = None,
    within: float | None = None,
    unit: Unit = POINTS,
) -> Part:
    """Arm against baseline, paired by seed.

    Args:
        table: tidy, one row per run.
        outcome: column of numbers.
        arm: its runs; see `Arm`.
        baseline: what it is compared with.
        label: what the contrast is about.
        at_least: asks for a rise of at least this.
        at_most: asks for a change of at most this (negative: a fall).
        within: asks for a change within ± this.
        unit: of the outcome; RATIO takes logarithms of it first.

    Raises:
        ValueError: not exactly one of the three questions, or no such arm.

    Example:
        >>> table = pd.DataFrame({"optim.lr": [0.1, 1.0] * 2, "seed": [0, 0, 1, 1]})
        >>> table["dead"] = [0.1, 0.5, 0.0, 0.6]
        >>> part = contrast(table, "dead", {"optim.lr": 1}, {"optim.lr": 0.1}, label="x", at_least=0.1)
        >>> part.differences
        array([0.4, 0.6])
    """
    margin, equivalence = _question(at_least, at_most, within)
    a, b = per_seed(table, outcome, arm), per_seed(table, outcome, baseline)
    seeds = a.index.intersection(b.index)
    paired = a[seeds].to_numpy(float), b[seeds].to_numpy(float)
    if unit.ratio:
        paired = np.log(paired[0]), np.log(paired[1])
    whole = ~np.isnan(paired[0] - paired[1])
    means = [float(side[whole].mean()) if whole.any() else np.nan for side in paired]
    composite = _dead_or_diverged(table, outcome, arm, baseline)
    return Part(label, paired[0] - paired[1], margin, equivalence, unit, means[0], means[1], composite)


def _dead_or_diverged(table: pd.DataFrame, outcome: str, arm: Arm, baseline: Arm) -> np.ndarray | None:
    """Differences that count a diverged run as wholly dead; None where the outcome is not death, or none did.

    Pairs that are lost to divergence are not missing at random.
    """
    if outcome != "dead" or "diverged" not in table:
        return None
    sides = [rows_of(table, side) for side in (arm, baseline)]
    if not any((side["diverged"] == 1).any() for side in sides):
        return None
    counted = table.assign(dead=table["dead"].where(table["diverged"] != 1, 1.0))
    difference = per_seed(counted, "dead", arm) - per_seed(counted, "dead", baseline)
    return difference.dropna().to_numpy(float)


def level(
    table: pd.DataFrame,
    outcome: str,
    arm: Arm,
    target: float,
    *,
    label: str,
    at_least: float | None = None,
    at_most: float | None = None,
    within: float | None = None,
    unit: Unit = POINTS,
) -> Part:
    """An outcome against a number instead of a baseline: `outcome - target`, one per seed."""
    margin, equivalence = _question(at_least, at_most, within)
    values = per_seed(table, outcome, arm).to_numpy(float)
    mean = float(np.nanmean(values)) if (~np.isnan(values)).any() else np.nan
    return Part(label, values - target, margin, equivalence, unit, mean, float(target))


def trend(
    table: pd.DataFrame,
    outcome: str,
    along: str,
    arm: Arm | None = None,
    *,
    label: str,
    log: bool = False,
    at_least: float | None = None,
    at_most: float | None = None,
    within: float | None = None,
    unit: Unit = POINTS,
    per: float | None = None,
) -> Part:
    """The least-squares slope of an outcome along a number, one per seed.

    Args:
        table: tidy.
        outcome: column of numbers.
        along: column of the number.
        arm: whose runs; None: all.
        label: what it is about.
        log: whether the number is taken by its logarithm to base 2.
        at_least: asks for a rise of at least this.
        at_most: asks for a change of at most this.
        within: asks for a change within ± this.
        unit: of the outcome.
        per: the slope is per this much of the number (of its logarithm); None: over its whole range.

    Example:
        >>> table = pd.DataFrame({"depth": [1, 2, 4] * 2, "seed": [0] * 3 + [1] * 3, "dead": [0, .1, .2] * 2})
        >>> trend(table, "dead", "depth", label="depth", log=True, at_least=0.1).differences.round(3)
        array([0.2, 0.2])
    """
    margin, equivalence = _question(at_least, at_most, within)
    rows = rows_of(table, arm or {})
    x = rows[along].to_numpy(float)
    x = np.log2(x) if log else x
    y = pd.to_numeric(rows[outcome], errors="coerce").to_numpy(float)
    reach = float(np.ptp(x)) if per is None else per
    slopes = []
    for seed in np.unique(rows["seed"]):
        mine = (rows["seed"] == seed).to_numpy() & ~np.isnan(y)
        varies = mine.sum() > 1 and np.ptp(x[mine]) > 0
        slopes.append(np.polyfit(x[mine], y[mine], 1)[0] * reach if varies else np.nan)
    return Part(label, np.array(slopes), margin, equivalence, unit)


def _question(at_least: float | None, at_most: float | None, within: float | None) -> tuple[float, bool]:
    """Margin with its sign, and whether equivalence is asked."""
    asked = [value for value in (at_least, at_most, within) if value is not None]
    if len(asked) != 1:
        raise ValueError(f"expected exactly one of at_least, at_most and within, but got {len(asked)}")
    if at_least is not None and at_least < 0:
        raise ValueError(f"at_least: expected a rise of 0 or more, but got {at_least}")
    if at_most is not None and at_most >= 0:
        raise ValueError(f"at_most: expected a fall, a number below 0, but got {at_most}")
    if within is not None and within <= 0:
        raise ValueError(f"within: expected a number above 0, but got {within}")
    return float(asked[0]), within is not None


def _same(cell: Any, value: Any) -> bool:
    if cell is None or (isinstance(cell, float) and np.isnan(cell)):
        return value is None
    if isinstance(value, float | int) and not isinstance(value, bool):
        return isinstance(cell, float | int | np.number) and bool(np.isclose(float(cell), value, rtol=1e-9))
    return bool(cell == value)
