"""PreparedCall: the fast path of a repeated call with the same shape, type and memory layout.

A small network spends more time in Python than in arithmetic. So everything that can be decided once is
stored in a PreparedCall, which checks that the next tensor is alike and counts it in one call.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from harness.activations.gates import Gate
from harness.kernels.countable import Uncountable, countable
from harness.kernels.layout import Axes, as_units
from harness.kernels.numba import ACCUMULATE_AT
from harness.kernels.numba_arguments import bounds_of, record_of
from harness.kernels.numba_gradients import ADD_SQUARES_AT
from harness.kernels.numba_intrinsics import LIKE
from harness.kernels.statistics import UnitStatistics


class PreparedCall:
    """Counts calls of one site whose tensors are alike; made by `prepare`."""

    __slots__ = (
        "_accumulate",
        "_add_squares",
        "_arrays",
        "_bounds",
        "_call",
        "_dtype",
        "_n",
        "_positions",
        "_record",
        "_rows",
        "_shape",
        "_slow_backward",
        "_statistics",
        "_strides",
    )

    def __init__(
        self,
        statistics: UnitStatistics,
        z: Tensor,
        units: Tensor,
        gate: Gate,
        slow_backward: Callable[[Tensor], None],
    ) -> None:
        arrays = statistics.running.arrays
        assert arrays is not None
        self._shape, self._dtype, self._strides = z.shape, z.dtype, z.stride()
        self._rows, self._positions = units.shape[0], units[0, 0].numel()
        self._n = self._rows * self._positions
        self._slow_backward = slow_backward
        self._statistics, self._bounds = statistics, bounds_of(gate, z.dtype)
        self._record = record_of(self._rows, self._positions, self._bounds, *arrays)
        self._call = self._record.ctypes.data
        self._accumulate, self._add_squares = ACCUMULATE_AT[z.dtype], ADD_SQUARES_AT[z.dtype]
        self._arrays = arrays  # keeps the addresses in the record valid

    # The checks are duplicated, since a method call would cost as much as they do.
    def forward(self, z: Tensor, same_forward: bool) -> bool:
        """Count pre-activations; return False without counting if they are not alike."""
        try:
            if (
                type(z) is not Tensor
                or z.dtype is not self._dtype
                or z.shape != self._shape
                or z.stride() != self._strides
                or not z.is_cpu
                or z.is_neg()
            ):
                return False
            address = z.data_ptr()
        except RuntimeError:  # nested, sparse, or inside a function transform
            return False
        if not address:  # lazy zeros, or freed
            return False
        self._accumulate(address, self._call, same_forward)
        self._statistics.n += self._n
        return True

    def backward(self, gradient: Tensor) -> None:
        """Add the squares of ∂L/∂z; gradients that are not alike go to `slow_backward`."""
        try:
            fits = (
                type(gradient) is Tensor
                and gradient.dtype is self._dtype
                and gradient.shape == self._shape
                and gradient.stride() == self._strides
                and gradient.is_cpu
                and not gradient.is_neg()
            )
            address = gradient.data_ptr() if fits else 0
        except RuntimeError:
            address = 0
        if not address:
            self._slow_backward(gradient)
            return
        self._add_squares(address, self._call)
        self._statistics.grad_n += self._n


def prepare(
    statistics: UnitStatistics,
    z: Tensor,
    axes: Axes,
    gate: Gate,
    slow_backward: Callable[[Tensor], None],
) -> PreparedCall | None:
    """The fast path for tensors like z; None if there is none.

    Args:
        statistics: statistics of the site, changed in place at every call.
        z: an example tensor, as it is passed to the activation.
        axes: unit axes.
        gate: where the activation's gate is open; a tensor of thresholds has no fast path.
        slow_backward: receives gradients that are not like z.

    Example:
        >>> import torch
        >>> from harness.kernels.statistics import empty
        >>> call = prepare(empty(2), torch.ones(3, 2), -1, Gate(low=0.0), print)
        >>> call.forward(torch.ones(3, 2), False), call.forward(torch.ones(4, 2), False)
        (True, False)
    """
    if type(z) is not Tensor or statistics.running.arrays is None or isinstance(gate.low, Tensor):
        return None
    if z.dtype not in LIKE or not z.is_cpu or z.is_neg():
        return None
    try:
        units = as_units(countable(z), axes, ordered=False)
    except Uncountable:
        return None
    if not units.numel() or units.shape[1] != statistics.size or units.data_ptr() != z.data_ptr():
        return None
    return PreparedCall(statistics, z, units, gate, slow_backward) if units.is_contiguous() else None
