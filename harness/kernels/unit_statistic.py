"""UnitStatistic: a user-defined statistic, collected for every unit in addition to the built-in ones."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from harness.detector.states import CENSUS_COLUMNS

SAMPLE = 3  # units of the site on which statistics are checked


class UnitStatistic(Protocol):
    """Sums over the inputs of a window for the units of one site; `docs/howto/statistics.md` has two.

    A recorder makes a copy for every site. Tensors stay on their device: nothing may read a value before
    `columns`. What a statistic is given is the training's own: it must not write into it, nor draw from
    torch's global generator, or training changes.
    """

    def zero(self, units: int, device: torch.device | str) -> None:
        """Start a new window with nothing observed."""

    def update(self, z: Tensor) -> None:
        """Count pre-activations (inputs, units); detached, in their own precision."""

    def update_gradient(self, gradient: Tensor) -> None:
        """Count ∂L/∂z (inputs, units)."""

    def merge(self, other: Self) -> None:
        """Add what another process has counted."""

    def columns(self) -> dict[str, np.ndarray]:
        """Column name → one number for each unit, at the end of a window."""
        ...


def column_names(statistics: Sequence[UnitStatistic]) -> list[str]:
    """Names of the columns that statistics add to a census.

    Raises:
        ValueError: one is a census column already, two have the same name, or one is not a number per unit.
    """
    names: list[str] = []
    for statistic in statistics:
        sample = copy.deepcopy(statistic)
        sample.zero(SAMPLE, "cpu")
        for name, column in sample.columns().items():
            if np.shape(column) != (SAMPLE,):
                what = f"statistics: {type(statistic).__name__}.columns()[{name!r}] for {SAMPLE} units"
                raise ValueError(f"{what}: expected ({SAMPLE},), but got the shape {np.shape(column)}")
            if name in CENSUS_COLUMNS or name in names:
                raise ValueError(f"statistics: expected new column names, but {name!r} is there already")
            names.append(name)
    return names


def for_site(statistics: Sequence[UnitStatistic], units: int, device: Any) -> tuple[UnitStatistic, ...]:
    """Copies for one site, with nothing observed."""
    own = tuple(copy.deepcopy(list(statistics)))
    for statistic in own:
        statistic.zero(units, device)
    return own


def unit_rows(units: Tensor) -> Tensor:
    """(A, F) or (A, F, P) → inputs and positions × units."""
    return units if units.ndim == 2 else units.transpose(1, 2).reshape(-1, units.shape[1])
