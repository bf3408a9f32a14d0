"""Units as two-state processes, alive and dead: how often they change, per 1,000 steps, by site."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.special import gammaincinv

from harness.detector.grid import Grid, census_grid

PER = 1000  # steps per rate
COUNTS = ("units", "born_dead", "dead", "deaths", "revivals", "alive_steps", "dead_steps")


def two_state(
    history: pd.DataFrame, *, down: Sequence[str] = ("dead",), confidence: float = 0.95
) -> pd.DataFrame:
    """Death and revival rates of every site.

    A rate is the number of changes between consecutive censuses of a unit, divided by the steps that the
    units spent in the state they left. Changes undone between two censuses are not seen: with infrequent
    censuses, a rate is a lower bound. The intervals are exact for independent changes (Garwood 1936). Units
    of one run are not independent, so an interval shows how precisely this run's rate is measured, but
    nothing about other seeds: see `harness.compare.two_state_rates`.

    Args:
        history: censuses with the columns evidence, step, site, unit and state.
        down: the states that count as dead.
        confidence: confidence of the intervals.

    Returns:
        One row per site: units, born_dead, dead (in their last census), deaths, revivals, alive_steps and
        dead_steps (unit-steps), death_rate, death_low, death_high (per 1,000 steps alive), revival_rate,
        revival_low, revival_high (per 1,000 steps dead; NaN if no unit was ever dead for a step), balance
        (the dead share at which the two rates balance; NaN if a rate is NaN or both are 0).

    Raises:
        ValueError: a needed column is missing, or the confidence is outside (0, 1).

    Example:
        >>> states = ["active", "active", "dead", "dead", "active"]
        >>> h = pd.DataFrame({"step": [0, 100, 200, 300, 400], "state": states})
        >>> table = two_state(h.assign(evidence="probe", site="a", unit=0))
        >>> table[["deaths", "alive_steps", "death_rate", "revival_rate", "balance"]].iloc[0].tolist()
        [1.0, 200.0, 5.0, 5.0, 0.5]
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: expected a share in (0, 1), but got {confidence}")
    grid = census_grid(history, down)
    table = pd.DataFrame({"site": grid.sites.astype(object), **totals(grid)})
    return with_rates(table, confidence)


def totals(grid: Grid) -> dict[str, np.ndarray]:
    """The counts of a two-state table: column → (S,)."""
    observed, dead, moves = grid.observed, grid.dead, grid.moves
    seen = observed.any(axis=0)
    every, censuses = np.arange(observed.shape[1]), len(grid.step)
    born = dead[observed.argmax(axis=0), every] if censuses else seen
    now = dead[censuses - 1 - observed[::-1].argmax(axis=0), every] if censuses else seen
    alive_before = moves.known & ~moves.before
    counts = {
        "units": seen,
        "born_dead": born,
        "dead": now,
        "deaths": (alive_before & dead).sum(axis=0),
        "revivals": (moves.known & moves.before & ~dead).sum(axis=0),
        "alive_steps": np.where(alive_before, moves.gap, 0).sum(axis=0),
        "dead_steps": np.where(moves.before, moves.gap, 0).sum(axis=0),
    }
    return {name: grid.per_site(values) for name, values in counts.items()}


def with_rates(table: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """The rates, their intervals and the balance, from the counts."""
    columns: dict[str, np.ndarray] = {}
    for name, events, exposure in (
        ("death", "deaths", "alive_steps"),
        ("revival", "revivals", "dead_steps"),
    ):
        k, steps = table[events].to_numpy(float), table[exposure].to_numpy(float)
        low, high = poisson_interval(k, confidence)
        with np.errstate(divide="ignore", invalid="ignore"):
            values = [np.where(steps > 0, PER * x / steps, np.nan) for x in (k, low, high)]
        columns |= dict(zip((f"{name}_rate", f"{name}_low", f"{name}_high"), values, strict=True))
    with np.errstate(invalid="ignore"):
        total = columns["death_rate"] + columns["revival_rate"]
        columns["balance"] = np.where(total > 0, columns["death_rate"] / total, np.nan)
    return table.assign(**columns)


def poisson_interval(events: np.ndarray, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Exact two-sided interval for a Poisson mean (Garwood 1936).

    Example:
        >>> low, high = poisson_interval(np.array([0, 10]))
        >>> low.round(3).tolist(), high.round(3).tolist()
        ([0.0, 4.795], [3.689, 18.39])
    """
    k, tail = np.asarray(events, float), (1 - confidence) / 2
    low = np.where(k > 0, gammaincinv(np.maximum(k, 1), tail), 0.0)
    return low, gammaincinv(k + 1, 1 - tail)
