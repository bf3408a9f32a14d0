"""The matrix behind every unit × time map, without matplotlib."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

#: How to read a map.
READ = (
    "one line per unit, the most active at the top; black = the gate opened on no input at that census, "
    "grey = not observed or not finite."
)


class RateGrid(NamedTuple):
    """The units of one site over its censuses, sorted for display.

    Attributes:
        rate: (units, censuses); NaN if unknown.
        dead: (units, censuses) bool.
        steps: (censuses,) ascending.
    """

    rate: np.ndarray
    dead: np.ndarray
    steps: np.ndarray


def rate_grid(
    step: np.ndarray, unit: np.ndarray, rate: np.ndarray, dead: np.ndarray, known: np.ndarray
) -> RateGrid:
    """The grid of one site, units with the largest last rates first.

    Args:
        step: step of each row of the site's censuses, in any order.
        unit: unit of each row.
        rate: rate of each row.
        dead: whether the unit was dead.
        known: whether its rate is known.

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
