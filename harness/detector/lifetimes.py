"""Lifetimes: for each unit, whether it was born dead, when it died and when it revived."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from harness.detector.grid import Columns, Grid, census_grid, one_evidence

__all__ = ["PERSISTENT", "Lives", "lifetimes", "lifetimes_of", "lives_of", "one_evidence"]

PERSISTENT = 3  # last censuses in all of which a persistently dead unit is dead
NEVER = -1  # step of an event that did not happen


@dataclass(frozen=True)
class Lives:
    """Births and deaths of U units, in arrays (U,).

    Attributes:
        seen: whether any census is informative about the unit; otherwise its other values mean nothing.
        first: step of the first such census.
        born_dead: whether it was dead then.
        died_at, revived_at: step of its first death or revival, `NEVER` if there was none.
        deaths: how often it died.
    """

    seen: np.ndarray
    first: np.ndarray
    born_dead: np.ndarray
    died_at: np.ndarray
    revived_at: np.ndarray
    deaths: np.ndarray


def lifetimes(
    history: Columns, *, persistent: int = PERSISTENT, down: Sequence[str] = ("dead",)
) -> pd.DataFrame:
    """Births and deaths of every unit, from the censuses of one kind of evidence.

    Censuses on a probe are used alone if there are any: the probe has the same inputs every time, from before
    the first step. Otherwise those of the training stream are used, and born dead means dead in the first of
    them. Censuses in which a unit was not observed or not finite are ignored for that unit.

    Args:
        history: censuses with the columns evidence, step, site, unit and state.
        persistent: number of last censuses in all of which a persistently dead unit is dead.
        down: the states that count as dead, e.g. ("dead", "starved"); `classify` recomputes states.

    Returns:
        One row per site × unit: born_dead, died_at (step of the first census at which it is dead after
        having been alive, NA if never), revived_at (likewise alive after having been dead), deaths (how
        often it died), dead_now (dead in its last census), persistently_dead (also False if there are
        fewer censuses than required), censuses (in which it was observed), first (step of the first).

    Raises:
        TypeError: the history is no table.
        ValueError: a needed column is missing, or `persistent` is below 1.

    Example:
        >>> states = ["active", "dead", "active", "dead"]
        >>> h = pd.DataFrame({"step": [0, 10, 20, 30], "state": states})
        >>> h = h.assign(evidence="stream", site="a", unit=0)
        >>> lifetimes(h)[["died_at", "revived_at", "deaths"]].iloc[0].tolist()
        [10, 20, 2]
    """
    return lifetimes_of(census_grid(history, down), persistent=persistent)


def lifetimes_of(grid: Grid, *, persistent: int = PERSISTENT) -> pd.DataFrame:
    """`lifetimes` for a history that is already a matrix."""
    if persistent < 1:
        raise ValueError(f"persistent: expected a number of censuses of at least 1, but got {persistent}")
    observed, dead, found = grid.observed, grid.dead, lives_of(grid)
    censuses, units = observed.shape
    nothing = np.zeros(units, int)
    last = censuses - 1 - observed[::-1].argmax(axis=0) if censuses else nothing
    alive = observed & ~dead
    until = (
        np.where(alive.any(axis=0), censuses - 1 - alive[::-1].argmax(axis=0), -1) if censuses else nothing
    )
    # number of censuses after the last one in which it was alive
    since = (observed & (np.arange(censuses)[:, None] > until)).sum(axis=0)
    table = pd.DataFrame(
        {
            "site": grid.site.astype(object),
            "unit": grid.unit,
            "born_dead": found.born_dead,
            "died_at": _steps(found.died_at),
            "revived_at": _steps(found.revived_at),
            "deaths": found.deaths,
            "dead_now": dead[last, np.arange(units)] if censuses else found.seen,
            "persistently_dead": since >= persistent,
            "censuses": observed.sum(axis=0),
            "first": found.first,
        }
    )
    return table if found.seen.all() else table.loc[found.seen].reset_index(drop=True)


def lives_of(grid: Grid) -> Lives:
    """Births and deaths only, as arrays: what a verdict needs."""
    observed, dead, moves = grid.observed, grid.dead, grid.moves
    seen = np.asarray(observed.any(axis=0))
    censuses, units = observed.shape
    first = observed.argmax(axis=0) if censuses else np.zeros(units, int)
    died = moves.known & dead & ~moves.before
    return Lives(
        seen=seen,
        first=grid.step[first] if censuses else first,
        born_dead=dead[first, np.arange(units)] if censuses else seen,
        died_at=_first_step(died, grid.step),
        revived_at=_first_step(moves.known & observed & ~dead & moves.before, grid.step),
        deaths=died.sum(axis=0),
    )


def _first_step(event: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Step of the first census with the event, `NEVER` if there is none: (T, U) → (U,)."""
    if not len(step):
        return np.full(event.shape[1], NEVER)
    return np.where(event.any(axis=0), step[event.argmax(axis=0)], NEVER).astype(np.int64)


def _steps(at: np.ndarray) -> Any:
    """Steps, with NA for events that did not happen."""
    return pd.arrays.IntegerArray(np.where(at == NEVER, 0, at), at == NEVER)
