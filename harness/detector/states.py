"""The state of a unit, from its counts; every threshold can be changed afterwards.

A census has one row per site × unit. Its state is the first of `STATES` that applies. "Dead" is a statement
about n inputs: it always comes with n and the bound `rate_upper` on the rate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import betaincinv

from harness.detector.grid import Columns

STATES = ("unobserved", "non_finite", "dead", "starved", "rare", "always_on", "active")

CENSUS_COLUMNS = (
    *("evidence", "step", "site", "unit", "n", "active", "rate", "rate_upper", "silent_for"),
    *("mean", "std", "max", "non_finite", "grad_rms", "grad_norm", "state"),
)


@dataclass(frozen=True)
class Thresholds:
    """Thresholds on which a verdict depends in addition to the counts.

    Args:
        rare: an alive unit whose rate is below this is `rare`.
        confidence: confidence of the one-sided upper bound on the rate.

    Raises:
        ValueError: a threshold is outside [0, 1], or the confidence is outside (0, 1).

    Example:
        >>> Thresholds(rare=0.05).confidence
        0.95
    """

    rare: float = 0.01
    confidence: float = 0.95

    @classmethod
    def of(cls, detect: Any) -> Thresholds:
        """The thresholds of a run: those in the `detect` group of its configuration, typed or as stored."""
        names = ("rare", "confidence")
        return cls(
            *(detect[name] if isinstance(detect, Mapping) else getattr(detect, name) for name in names)
        )

    def __post_init__(self) -> None:
        if not 0 <= self.rare <= 1:
            raise ValueError(f"rare: expected a share in [0, 1], but got {self.rare}")
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence: expected a share in (0, 1), but got {self.confidence}")


def rate_upper(active: np.ndarray, n: np.ndarray, confidence: float = 0.95) -> np.ndarray:
    """Exact one-sided upper bound on a rate (Clopper & Pearson 1934); 1 if nothing was observed.

    Args:
        active: number of inputs on which the gate was open, any shape.
        n: number of observed inputs, same shape.
        confidence: probability that the true rate is below the bound.

    Example:
        >>> rate_upper(np.array([0]), np.array([2000])).round(6)  # 1 - 0.05 ** (1 / 2000)
        array([0.001497])
    """
    active, n = np.asarray(active, float), np.asarray(n, float)
    below = active < n
    bound = betaincinv(active + 1, np.where(below, n - active, 1.0), confidence)
    return np.where(below, bound, 1.0)


def states(census: Columns, thresholds: Thresholds | None = None) -> np.ndarray:
    """The state of every row (array of str), from n, active, non_finite and grad_rms.

    Raises:
        ValueError: a needed column is missing.
    """
    missing = [c for c in ("n", "active", "non_finite") if c not in census]
    if missing:
        raise ValueError(f"expected the columns n, active, non_finite, but {', '.join(missing)} is missing")
    thresholds = thresholds or Thresholds()
    n, active = np.asarray(census["n"]), np.asarray(census["active"])
    gradient = np.asarray(census["grad_rms"], float) if "grad_rms" in census else np.full(len(n), np.nan)
    codes = state_codes(n, active, np.asarray(census["non_finite"]), gradient, thresholds.rare)
    return np.array(STATES)[codes]


def state_codes(
    n: np.ndarray, active: np.ndarray, non_finite: np.ndarray, gradient: np.ndarray, rare: Any
) -> np.ndarray:
    """The state of units as indices into `STATES` (int8): the first that applies.

    Args:
        n: number of observed inputs, any shape.
        active: number of inputs on which the gate was open.
        non_finite: number of NaN and infinite pre-activations.
        gradient: `grad_rms`, NaN if no backward was seen.
        rare: rate below which an alive unit is rare; a number, or an array that broadcasts.
    """
    conditions = [
        n == 0,
        non_finite > 0,
        active == 0,
        gradient == 0,  # no gradient comes back: everything behind the unit is dead, or never selects it
        active < rare * n,
        active == n,
    ]
    codes = np.full(n.shape, len(STATES) - 1, np.int8)
    for code in range(len(conditions) - 1, -1, -1):
        codes[conditions[code]] = code
    return codes


def classify(units: pd.DataFrame, thresholds: Thresholds | None = None) -> pd.DataFrame:
    """A census with `rate_upper` and `state` recomputed for other thresholds; the input is not changed.

    Args:
        units: rows with n, active, non_finite and, if gradients were watched, grad_rms.
        thresholds: defaults to `Thresholds()`.

    Raises:
        ValueError: a needed column is missing.

    Example:
        >>> census = pd.DataFrame({"n": [100, 100], "active": [0, 3], "non_finite": 0})
        >>> list(classify(census, Thresholds(rare=0.05)).state)
        ['dead', 'rare']
    """
    thresholds = thresholds or Thresholds()
    state = states(units, thresholds)
    bound = rate_upper(units["active"].to_numpy(), units["n"].to_numpy(), thresholds.confidence)
    return units.assign(rate_upper=bound, state=state)


def summarise(units: pd.DataFrame) -> pd.DataFrame:
    """One row per site, in order of appearance: number of units per state, n, rates and gradients.

    Args:
        units: one census (one evidence, one step).

    Returns:
        Columns site, units, n, one per state, rate (median of the finite units), rate_upper (largest among
        the dead, NaN if none), grad_rms (median, likewise).
    """
    observed, finite = units["unit"] >= 0, units["state"] != "non_finite"
    seen = {name: units[name].where(finite) for name in ("rate", "grad_rms") if name in units}
    groups = units.assign(units=observed.astype(int), **seen).groupby("site", sort=False)
    table = groups.agg(units=("units", "sum"), n=("n", "max"), rate=("rate", "median"))
    for state in STATES:
        table[state] = units["state"].eq(state).groupby(units["site"], sort=False).sum()
    dead = units[units["state"] == "dead"]
    table["rate_upper"] = dead.groupby("site", sort=False)["rate_upper"].max()
    table["grad_rms"] = groups["grad_rms"].median() if "grad_rms" in units else np.nan
    return table.reset_index()


def dead_fraction(units: Columns) -> float:
    """Share of dead units among the observed units of a census; NaN if none was observed and finite."""
    return dead_share(np.asarray(units["state"], object))


def dead_share(state: np.ndarray) -> float:
    """`dead_fraction` for an array of states.

    Example:
        >>> dead_share(np.array(["dead", "active", "unobserved"], dtype=object))
        0.5
    """
    observed = state != "unobserved"
    finite = observed & (state != "non_finite")
    return float((state == "dead").sum() / observed.sum()) if finite.any() else float("nan")
