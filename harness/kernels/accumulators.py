"""Accumulators: the running sums of a site, which every kernel updates in place."""

from __future__ import annotations

import torch
from torch import Tensor

ACTIVE, NON_FINITE, INPUTS_SINCE_ACTIVE = 0, 1, 2  # rows of counts
SUM, SQUARES, MAX, GRADIENT, SHIFT = 0, 1, 2, 3, 4  # rows of sums


class Accumulators:
    """Running sums of a site's F units on a device.

    Attributes:
        counts: (3, F) int64. Rows: ACTIVE, inputs on which the gate was open; NON_FINITE, inputs on which
            z was NaN or infinite; INPUTS_SINCE_ACTIVE, inputs since the gate was last open, across windows.
        sums: (5, F) float64. Rows: SUM and SQUARES of z - SHIFT over finite z; MAX, the largest finite z,
            -inf if there was none; GRADIENT, squares of ∂L/∂z; SHIFT, a typical value of the unit, set with
            the first finite value, so that the variance is accurate however far the mean is from 0.
        arrays: the same memory as numpy arrays (counts, sums) on the CPU, None on other devices.

    Example:
        >>> Accumulators(2, "cpu").sums[MAX].tolist()
        [-inf, -inf]
    """

    __slots__ = ("arrays", "counts", "sums")

    def __init__(self, units: int, device: torch.device | str) -> None:
        self.counts = torch.zeros(3, units, dtype=torch.int64, device=device)
        self.sums = torch.zeros(5, units, dtype=torch.float64, device=device)
        self.sums[MAX] = -torch.inf
        on_cpu = self.counts.device.type == "cpu"
        self.arrays = (self.counts.numpy(), self.sums.numpy()) if on_cpu else None

    def clear(self) -> None:
        """Reset everything except the inputs since a gate was last open."""
        self.counts[:INPUTS_SINCE_ACTIVE] = 0
        self.sums.zero_()
        self.sums[MAX] = -torch.inf


def shifted(sums: Tensor, finite: Tensor, shift: Tensor | float) -> Tensor:
    """Sums of the same values around another shift: sums around a common shift add up.

    Args:
        sums: (5, F) as in `Accumulators`.
        finite: (F,) number of finite values in the sums.
        shift: (F,) or one number.

    Example:
        >>> sums = torch.tensor([[2.0], [4.0], [9.0], [0.0], [7.0]])  # of 7 and 9, around 7
        >>> shifted(sums, torch.tensor([2]), 0.0)[:2, 0].tolist()
        [16.0, 130.0]
    """
    moved = sums.clone()
    moved[SHIFT] = shift
    d = torch.where(finite > 0, sums[SHIFT] - moved[SHIFT], 0.0)
    moved[SUM] += finite * d
    squares = moved[SQUARES] + d * (2 * sums[SUM] + finite * d)
    moved[SQUARES] = torch.where(squares.isnan(), torch.inf, squares)  # exceeds the range of float64
    return moved
