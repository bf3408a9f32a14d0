"""PreparedCall: the fast path of a repeated call with the same shape, type and memory layout.

A small network spends more time in Python than in arithmetic. So everything that can be decided once is
stored in a PreparedCall, which checks that the next tensor is alike and counts it in one call. Tensors whose
memory the loops cannot read are copied first.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from harness.activations.gates import Gate
from harness.kernels.countable import Uncountable, countable
from harness.kernels.dispatch import HALF
from harness.kernels.layout import Axes, unit_order
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
        "_arrange",
        "_arrays",
        "_bounds",
        "_call",
        "_direct",
        "_dtype",
        "_gate_of",
        "_kind",
        "_n",
        "_order",
        "_record",
        "_shape",
        "_slow_backward",
        "_statistics",
        "_strides",
    )

    def __init__(
        self,
        statistics: UnitStatistics,
        z: Tensor,
        order: list[int],
        sizes: list[int],
        gate_of: Callable[[], Gate] | None,
        bounds: np.ndarray,
        slow_backward: Callable[[Tensor], None],
        arrange: Callable[[Tensor], Tensor],
    ) -> None:
        arrays = statistics.running.arrays
        assert arrays is not None
        self._shape, self._dtype, self._strides = z.shape, z.dtype, z.stride()
        self._kind = _kind(z)
        self._arrange, self._order = arrange, order
        self._direct = self._laid_out(z).data_ptr() == z.data_ptr()
        rows, positions = sizes[0], sizes[2] if len(sizes) > 2 else 1
        self._n = rows * positions
        self._slow_backward = slow_backward
        self._statistics, self._gate_of, self._bounds = statistics, gate_of, bounds
        self._record = record_of(rows, positions, self._bounds, *arrays)
        self._call = self._record.ctypes.data
        self._accumulate, self._add_squares = ACCUMULATE_AT[self._kind], ADD_SQUARES_AT[self._kind]
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
        if self._gate_of is not None:
            bounds = bounds_of(self._gate_of(), self._kind)
            if bounds.shape != self._bounds.shape:
                return False
            self._bounds[:] = bounds
        if self._direct:
            self._accumulate(address, self._call, same_forward)
        else:
            units = self._laid_out(z)
            self._accumulate(units.data_ptr(), self._call, same_forward)
        self._statistics.n += self._n
        return True

    def backward(self, gradient: Tensor) -> None:
        """Add the squares of ∂L/∂z; gradients that are not alike go to `slow_backward`."""
        try:
            fits = (
                type(gradient) is Tensor
                and gradient.dtype is self._dtype
                and gradient.shape == self._shape
                and gradient.is_cpu
                and not gradient.is_neg()
            )
            address = gradient.data_ptr() if fits else 0
        except RuntimeError:
            address = 0
        if not address:
            self._slow_backward(gradient)
            return
        if self._direct and gradient.stride() == self._strides:
            self._add_squares(address, self._call)
        else:
            units = self._laid_out(gradient)
            self._add_squares(units.data_ptr(), self._call)
        self._statistics.grad_n += self._n

    def _laid_out(self, z: Tensor) -> Tensor:
        """The values in the order of the loops, (A, F, P), copied if necessary."""
        return self._arrange(z.detach()).permute(self._order).contiguous().to(self._kind)


class CheckedCall:
    """Counts calls whose tensors are alike where no compiled loop does: on a GPU, or with gates of their own.

    Args:
        z: an example tensor.
        count: receives a tensor that is alike, and whether the site was called before in the same forward;
            returns whether it counts it.
        backward: receives its gradient.
    """

    __slots__ = ("_count", "_like", "backward")

    def __init__(
        self, z: Tensor, count: Callable[[Tensor, bool], bool], backward: Callable[[Tensor], None]
    ) -> None:
        self._like = z.shape, z.dtype, z.device
        self._count, self.backward = count, backward

    def forward(self, z: Tensor, same_forward: bool) -> bool:
        """Count pre-activations; return False without counting if they are not alike."""
        try:
            alike = type(z) is Tensor and (z.shape, z.dtype, z.device) == self._like and z.data_ptr() != 0
        except RuntimeError:  # as above
            return False
        return alike and self._count(z, same_forward)


def prepare(
    statistics: UnitStatistics,
    z: Tensor,
    axes: Axes,
    gate: Gate | Callable[[], Gate],
    slow_backward: Callable[[Tensor], None],
    arrange: Callable[[Tensor], Tensor] = Tensor.detach,
) -> PreparedCall | None:
    """The fast path for tensors like z; None if there is none.

    Args:
        statistics: statistics of the site, changed in place at every call.
        z: an example tensor, as it is passed to the activation.
        axes: unit axes of the arranged tensor.
        gate: where the activation's gate is open; a function is asked at every call.
        slow_backward: receives gradients that are not like z.
        arrange: gives the units axes of their own.

    Example:
        >>> import torch
        >>> from harness.kernels.statistics import empty
        >>> call = prepare(empty(2), torch.ones(3, 2), -1, Gate(low=0.0), print)
        >>> call.forward(torch.ones(3, 2), False), call.forward(torch.ones(4, 2), False)
        (True, False)
    """
    if type(z) is not Tensor or statistics.running.arrays is None:
        return None
    if not (z.dtype in LIKE or z.dtype in HALF) or not z.is_cpu or z.is_neg():
        return None
    try:
        countable(z)
    except Uncountable:
        return None
    order, sizes = unit_order(arrange(z.detach()), axes, ordered=False)
    gate_of = None if isinstance(gate, Gate) else gate
    bounds = bounds_of(gate if isinstance(gate, Gate) else gate(), _kind(z))
    if not z.numel() or sizes[1] != statistics.size or bounds.shape[1] not in (1, statistics.size):
        return None
    return PreparedCall(statistics, z, order, sizes, gate_of, bounds, slow_backward, arrange)


def _kind(z: Tensor) -> torch.dtype:
    """The precision in which the loops read a tensor."""
    return torch.float32 if z.dtype in HALF else z.dtype
