"""Counter: the short way of a call that came before in the same shape, kind and memory layout.

A small network spends more time in Python than in arithmetic, so everything that can be decided once is
decided once: a Counter holds it, checks that the next tensor is alike, and counts it in one compiled call.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from harness.activations.table import Gate
from harness.hooks.sites import Origin
from harness.kernels import dispatch as kernels
from harness.kernels import numba as loops
from harness.kernels.dispatch import LIKE, Layout
from harness.kernels.numba import GRADIENT
from harness.kernels.statistics import UnitStatistics


class Counter:
    """Counts calls of one site whose tensors are alike.

    Args:
        origin: of the tensors, kept so that its identity stays its own.
        statistics: of the site, changed in place at every call.
        z: a tensor of the kind, as it is passed to the activation.
        here: its layout.
        gate: where the activation's gate is open.
        long_way_back: takes gradients that are not like z.
    """

    __slots__ = (
        "_bounds",
        "_counts",
        "_dtype",
        "_gradients",
        "_like",
        "_long_way_back",
        "_n",
        "_positions",
        "_rows",
        "_shape",
        "_statistics",
        "_sums",
        "_whole",
        "origin",
    )

    def __init__(
        self,
        origin: Origin,
        statistics: UnitStatistics,
        z: Tensor,
        here: Layout,
        gate: Gate,
        long_way_back: Callable[[Tensor], None],
    ) -> None:
        arrays = statistics.running.arrays
        assert arrays is not None  # a tensor with a layout is on the CPU, as are the sums of its site
        self.origin, self._shape, self._dtype = origin, here.shape, here.dtype
        self._long_way_back = long_way_back
        self._whole = Tensor.is_contiguous if here.format is torch.contiguous_format else _channels_last
        self._rows, self._positions, self._n = here.rows, here.positions, here.n
        self._statistics, self._bounds, self._like = statistics, kernels.bounds_of(gate, z), LIKE[z.dtype]
        self._counts, self._sums = arrays
        self._gradients = arrays[1][GRADIENT]

    def forward(self, z: Tensor, again: bool) -> bool:
        """Count pre-activations in; False where they are not alike, or inside a function transform."""
        if z.shape != self._shape or z.dtype is not self._dtype or type(z) is not Tensor:
            return False
        try:
            address = z.data_ptr() if self._whole(z) else 0
        except RuntimeError:  # inside grad or vmap a tensor has no memory of its own
            address = 0
        if not address:
            return False
        loops.accumulate(address, self._rows, self._positions, again, self._bounds, self._counts, self._sums)
        self._statistics.n += self._n
        return True

    def backward(self, gradient: Tensor) -> None:
        """Likewise for ∂L/∂z; what is not alike takes the long way."""
        try:
            address = gradient.data_ptr() if self._whole(gradient) else 0
        except RuntimeError:
            address = 0
        if address and type(gradient) is Tensor:
            loops.add_squares(address, self._rows, self._positions, self._like, self._gradients)
            self._statistics.grad_n += self._n
        else:
            self._long_way_back(gradient)


def _channels_last(z: Tensor) -> bool:
    return z.is_contiguous(memory_format=torch.channels_last)


def counter(
    origin: Origin,
    statistics: UnitStatistics,
    z: Tensor,
    axis: int,
    gate: Gate,
    long_way_back: Callable[[Tensor], None],
) -> Counter | None:
    """The short way for tensors like z; None where there is none.

    Example:
        >>> from harness.kernels.statistics import empty
        >>> short = counter(Origin(None, -1), empty(2), torch.ones(3, 2), -1, Gate(low=0.0), print)
        >>> short.forward(torch.ones(3, 2), False), short.forward(torch.ones(4, 2), False)
        (True, False)
    """
    if type(z) is not Tensor or statistics.running.arrays is None:
        return None
    here = kernels.layout(z, axis)
    return None if here is None else Counter(origin, statistics, z, here, gate, long_way_back)
