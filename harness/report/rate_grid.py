"""The matrix behind every map of unit × time; no matplotlib."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

#: How a map is read.
READ = (
    "one line per unit, the most active at the top; black = the gate opened on no input at that census, "
    "grey = not observed or not finite."
)


class RateGrid(NamedTuple):
    """The units of one site over its censuses, sorted for the eye.

    Attributes:
        rate: (units, censuses); NaN where nothing is known.
        dead: (units, censuses) bool.
        steps: (censuses,) ascending.
    """

    rate: np.ndarray
    dead: np.ndarray
    steps: np.ndarray


def rate_grid(
    step: np.ndarray, unit: np.ndarray, rate: np.ndarray, dead: np.ndarray, known: np.ndarray
) -> RateGrid:
    """The grid of one site, the units with the largest last rates first.

    Args:
        step: of each row of the site's censuses, in any order.
        unit: likewise.
        rate: likewise.
        dead: whether the unit was dead.
        known: whether anything is known of it.

    Example:
        >>> rows = np.array([0, 0, 9, 9]), np.array([0, 1, 0, 1]), np.array([0.5, 0.5, 0.0, 0.75])
        >>> found = rate_grid(*rows, dead=rows[2] == 0, known=rows[2] < 1)
        >>> found.rate.tolist(), found.dead[:, -1].tolist()
        ([[0.5, 0.75], [0.5, 0.0]], [False, True])
    """
    steps, column = np.unique(step, return_inverse=True)
    units, row = np.unique(unit, return_inverse=True)
    rates, gone = np.full((len(units), len(steps)), np.nan), np.zeros((len(units), len(steps)), bool)
    rates[row, column] = np.where(known, rate, np.nan)
    gone[row, column] = dead
    order = np.lexsort(np.nan_to_num(rates, nan=-1).T)[::-1]
    return RateGrid(rates[order], gone[order], steps)
