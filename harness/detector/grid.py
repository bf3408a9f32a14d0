"""A history of censuses as a matrix, census × unit, for lifetimes, rates and overlaps.

Shapes: T censuses, U units, S sites.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

COLUMNS = ("evidence", "step", "site", "unit", "state")
SILENT = ("unobserved", "non_finite")  # states that are neither dead nor alive

#: A history or a census: a frame, or its columns as arrays, which can be sliced ten times as fast.
Columns = pd.DataFrame | Mapping[str, Any]


@dataclass(frozen=True)
class Grid:
    """When each unit was observed, and whether it was dead then.

    Attributes:
        step: (T,) steps of the censuses, ascending; two censuses may have the same step.
        site: (U,) names; the units of one site are adjacent.
        unit: (U,) numbers, ascending within a site.
        observed: (T, U) whether the census is informative about the unit.
        dead: (T, U) whether it was dead (or in another requested state); False if not observed.
    """

    step: np.ndarray
    site: np.ndarray
    unit: np.ndarray
    observed: np.ndarray
    dead: np.ndarray

    @cached_property
    def starts(self) -> np.ndarray:
        """(S,) index of the first unit of each site."""
        return np.flatnonzero(np.append(True, self.site[1:] != self.site[:-1])[: len(self.site)])

    @property
    def sites(self) -> np.ndarray:
        """(S,) names, in the order of the units."""
        return self.site[self.starts]

    def per_site(self, values: np.ndarray) -> np.ndarray:
        """Sums over the units of each site: (..., U) → (..., S)."""
        if not len(self.starts):
            return np.zeros((*values.shape[:-1], 0))
        kind = np.int64 if values.dtype == bool else values.dtype
        return np.add.reduceat(values, self.starts, axis=-1, dtype=kind)

    @cached_property
    def moves(self) -> Moves:
        """Changes between each unit's consecutive informative censuses."""
        observed, dead, step = self.observed, self.dead, self.step
        known, before = np.zeros_like(observed), np.zeros_like(dead)
        gap = np.zeros(observed.shape, np.int64)
        if observed.all():
            known[1:], before[1:] = True, dead[:-1]
            gap[1:] = np.diff(step)[:, None]
            return Moves(known, before, gap)
        latest = np.where(observed, np.arange(len(step))[:, None], -1)
        latest = np.maximum.accumulate(latest, axis=0)[:-1]  # (T-1, U): the last informative census so far
        known[1:] = observed[1:] & (latest >= 0)
        before[1:] = np.take_along_axis(dead, np.maximum(latest, 0), axis=0) & known[1:]
        gap[1:] = np.where(known[1:], step[1:, None] - step[latest], 0)
        return Moves(known, before, gap)


@dataclass(frozen=True)
class Moves:
    """Arrays (T, U) that compare each census of a unit with the last informative one before it.

    Attributes:
        known: whether both exist.
        before: whether the unit was dead in the earlier one.
        gap: steps between the two, 0 if not known.
    """

    known: np.ndarray
    before: np.ndarray
    gap: np.ndarray


def census_grid(history: Columns, down: Sequence[str] = ("dead",)) -> Grid:
    """The matrix of a history, from the probe's censuses if there are any, else from the stream's.

    Args:
        history: censuses with the columns evidence, step, site, unit and state; in any order.
        down: the states that count as dead.

    Raises:
        TypeError: it is no table.
        ValueError: a needed column is missing.

    Example:
        >>> h = pd.DataFrame({"step": [0, 10, 20], "state": ["active", "dead", "unobserved"]})
        >>> found = census_grid(h.assign(evidence="stream", site="a", unit=0))
        >>> found.dead.ravel().tolist(), found.observed.ravel().tolist()
        ([False, True, False], [True, True, False])
    """
    if not isinstance(history, pd.DataFrame | Mapping):
        kind = type(history).__name__
        raise TypeError(f"history: expected the table of a recorder's history(), but got {kind}")
    missing = [c for c in COLUMNS if c not in history]
    if missing:
        raise ValueError(f"expected a history of censuses, but the columns {', '.join(missing)} are missing")
    used = _used(history)
    rows = {name: history[name] if used is None else history[name][used] for name in COLUMNS}
    codes, words = pd.factorize(rows["state"])  # a missing state has code -1: the last, silent flag
    telling = np.array([word not in SILENT for word in words] + [False])
    counted = np.array([word in down for word in words] + [False])
    observed = telling[codes]
    dead = counted[codes] & observed
    site, names = pd.factorize(rows["site"])
    step, unit = np.asarray(rows["step"]), np.asarray(rows["unit"])
    names = np.asarray(names, dtype=object)
    regular = _regular(step, site, unit)
    if regular is None:
        step, site, unit, (observed, dead) = _dense(step, site, unit, (observed, dead))
    else:
        step, site, unit = step[::regular], site[:regular], unit[:regular]
        observed, dead = observed.reshape(len(step), -1), dead.reshape(len(step), -1)
    order = np.lexsort((unit, site))
    if not np.array_equal(order, np.arange(len(order))):
        site, unit, observed, dead = site[order], unit[order], observed[:, order], dead[:, order]
    return Grid(step, names[site], unit, observed, dead)


def one_evidence(history: pd.DataFrame) -> pd.DataFrame:
    """The probe's censuses if there are any, else the stream's."""
    used = _used(history)
    return history if used is None else history[used]


def telling(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows that show whether their unit is dead, without unobserved and non-finite ones."""
    return rows[~rows["state"].isin(SILENT)]


def of_one_run(table: Columns) -> None:
    """Refuse tables of several runs, such as `open_runs(…).census`.

    Raises:
        ValueError: the column `run` has several values.
    """
    runs = pd.unique(np.asarray(table["run"], object)) if "run" in table else ()
    if len(runs) > 1:
        raise ValueError(
            f"expected a table of one run, but got one of {len(runs):,} (column run); take run.census or "
            'run.steps of one run, or go through table.groupby("run")'
        )


def _used(history: Columns) -> np.ndarray | None:
    """Which rows `one_evidence` uses; None: all."""
    of_one_run(history)
    probe = np.asarray(history["evidence"] == "probe")
    return probe if probe.any() and not probe.all() else None


def latest(history: Columns) -> np.ndarray:
    """Which rows (bool) are the latest census: of the probe if there is one, a finite one if possible.

    If several censuses have its step, the informative one with the most inputs of a unit is used; the later
    one of equals.
    """
    used, step = _used(history), np.asarray(history["step"])
    codes, words = pd.factorize(history["state"])
    telling = np.array([word not in SILENT for word in words] + [False])[codes]
    if used is None:
        used = np.ones(len(step), bool)
    telling &= used
    rows = telling if telling.any() else used
    found = used & (step == step[rows].max()) if rows.any() else used
    at = np.flatnonzero(found)
    inputs = np.asarray(history["n"])[at] if "n" in history else np.zeros(len(at))
    at = at[np.lexsort((inputs, telling[at]))]  # informative ones come last, with the most inputs at the end
    site, _ = pd.factorize(history["site"])
    unit = np.asarray(history["unit"])[at]
    names = site[at] * (int(unit.max(initial=0)) + 2) + unit
    found[at[pd.Index(names).duplicated(keep="last")]] = False
    return found


def uncounted(history: Columns, at: int, evidence: str) -> int | None:
    """Step of the last census of some evidence, if no census after step `at` counted anything; else None."""
    later = (np.asarray(history["evidence"], object) == evidence) & (np.asarray(history["step"]) > at)
    states = np.asarray(history["state"], object)[later]
    nothing = len(states) > 0 and bool((states == "unobserved").all())
    return int(np.asarray(history["step"])[later].max()) if nothing else None


def _regular(step: np.ndarray, site: np.ndarray, unit: np.ndarray) -> int | None:
    """Units per census, if every census lists the same units in the same order, as a Recorder does."""
    if not len(step):
        return None
    repeats = np.flatnonzero((site[1:] == site[0]) & (unit[1:] == unit[0]))
    units = int(repeats[0]) + 1 if len(repeats) else len(step)
    if len(step) % units:
        return None
    steps, sites, numbers = (values.reshape(-1, units) for values in (step, site, unit))
    regular = (steps == steps[:, :1]).all() and (sites == sites[0]).all() and (numbers == numbers[0]).all()
    single = len(set(zip(sites[0].tolist(), numbers[0].tolist(), strict=True))) == units
    return units if regular and single and (np.diff(steps[:, 0]) >= 0).all() else None


def _dense(
    step: np.ndarray, site: np.ndarray, unit: np.ndarray, values: tuple[np.ndarray, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[np.ndarray]]:
    """Rows in any order, with any gaps, as matrices; False for missing rows."""
    order = np.lexsort((step, unit, site))  # stable: two censuses of one step keep their order
    step, site, unit = step[order], site[order], unit[order]
    new_unit = np.append(True, (site[1:] != site[:-1]) | (unit[1:] != unit[:-1]))[: len(site)]
    new_step = new_unit | np.append(True, step[1:] != step[:-1])[: len(step)]
    place = np.arange(len(step))
    turn = place - np.maximum.accumulate(np.where(new_step, place, 0))  # 0, 1, … within one step of a unit
    census, row = np.unique(np.stack([step, turn]), axis=1, return_inverse=True)
    column = np.cumsum(new_unit) - 1
    shape = (census.shape[1], int(new_unit.sum()))
    matrices = [np.zeros(shape, bool) for _ in values]
    for matrix, value in zip(matrices, values, strict=True):
        matrix[row.ravel(), column] = value[order]
    return census[0], site[new_unit], unit[new_unit], matrices
