"""Dates: at which step each dead unit died, on the evidence that shows it dead.

Censuses of that evidence bracket a death: alive at one, dead at the next and ever after. In between, the
training stream gives the step if the gate closed for good there in the same interval. One kind of evidence
never dates a death that only the other has seen.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from harness.detector.grid import census_grid
from harness.detector.transitions import UNIT


def death_steps(rows: pd.DataFrame, stream: pd.DataFrame, units: pd.DataFrame) -> np.ndarray:
    """The step of each dead unit's last death; NaN for units that are alive or were born dead.

    Args:
        rows: censuses of the evidence on which units are called dead, up to the last relevant one.
        stream: censuses of the training stream; the same, or empty.
        units: site, unit, dead, born.
    """
    alive, shut = (of_units(values, units).to_numpy(float) for values in _brackets(rows))
    lived = units["dead"].to_numpy() & ~units["born"].to_numpy()
    closed = _closing_steps(stream, units)
    if (rows["evidence"] == "stream").all():  # a gate may close within the window that shows the unit alive
        died = np.where(np.isnan(closed), shut, closed)
    else:
        died = np.where((closed > alive) & (closed <= shut), closed, shut)
    return np.where(lived, died, np.nan)


def _brackets(rows: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """For each unit, the last census at which it was alive (0 if none), and the first dead one after it."""
    grid = census_grid(rows)
    index = pd.MultiIndex.from_arrays([grid.site, grid.unit], names=UNIT)
    alive, nothing = grid.observed & ~grid.dead, np.zeros(len(index), int)
    censuses = len(grid.step)
    last = np.where(alive.any(axis=0), censuses - 1 - alive[::-1].argmax(axis=0), -1) if censuses else nothing
    later = grid.dead & (np.arange(censuses)[:, None] > last)
    at = np.where(later.any(axis=0), grid.step[later.argmax(axis=0)], np.nan) if censuses else nothing
    return pd.Series(np.where(last >= 0, grid.step[last], 0.0), index), pd.Series(at, index, dtype=float)


def of_units(table: Any, units: pd.DataFrame) -> Any:
    """The rows of a table or series indexed by site and unit, one for each row of `units`."""
    return table.reindex(pd.MultiIndex.from_frame(units[UNIT]))


def _closing_steps(stream: pd.DataFrame, units: pd.DataFrame) -> np.ndarray:
    """The step from which no training input opened the gate; NaN if one still does, or none ever did.

    silent_for counts inputs since the gate last opened, so the step follows from the number of inputs in each
    window.
    """
    stream = stream[stream["unit"] >= 0]
    closed = np.full(len(units), np.nan)
    if stream.empty:
        return closed
    last = stream[stream["step"] == stream["step"].max()]
    last = last.iloc[np.argsort(last["n"].to_numpy() > 0, kind="stable")]  # an empty window closes nothing
    last = last.drop_duplicates(UNIT, keep="last").set_index(UNIT)
    for site, rows in units.groupby("site", sort=False):
        own = stream[stream["site"] == site]
        if own.empty:
            continue
        windows = own[own["unit"] == own["unit"].iloc[0]].groupby("step")["n"].sum()
        inputs = np.concatenate([[0], windows.cumsum().to_numpy()])
        steps = np.concatenate([[0], windows.index.to_numpy()])
        here = of_units(last, rows)
        silent, shut = here["silent_for"].to_numpy(float), here["active"].to_numpy(float) == 0
        step = np.ceil(np.interp(inputs[-1] - silent, inputs, steps) - 1e-9) + 1
        closed[rows.index.to_numpy()] = np.where(shut & (silent < inputs[-1]), step, np.nan)
    return closed
