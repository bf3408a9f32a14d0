"""Running sums of one site over a stack: numba where memory allows, else torch on any device.

Legend: K members, A inputs, F units of a site.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from harness.activations.gates import Gate
from harness.graph.plan import Site
from harness.kernels.accumulators import INPUTS_SINCE_ACTIVE, MAX, Accumulators
from harness.kernels.dispatch import accumulate, accumulate_gradient
from harness.kernels.numba import accumulate_members
from harness.kernels.numba_gradients import add_squares_members
from harness.kernels.numba_intrinsics import LIKE
from harness.training.stacked.member_gates import Part


class HostSums:
    """Running sums of one site whose pre-activations lie as (K, A, F) in the computer's memory.

    Attributes:
        counts, sums: (K, 3, F) int64 and (K, 5, F) float64, rows as in `Accumulators`.
    """

    def __init__(self, members: int, units: int, dtype: torch.dtype) -> None:
        self.counts, self.sums = np.zeros((members, 3, units), np.int64), np.zeros((members, 5, units))
        self._like = LIKE[dtype]
        self.clear()

    def clear(self) -> None:
        """Start a new window; the count of inputs since a gate was last open continues."""
        self.counts[:, :INPUTS_SINCE_ACTIVE] = 0
        self.sums[:] = 0
        self.sums[:, MAX] = -np.inf

    def add(self, z: Tensor, parts: Sequence[Part], lows: Sequence[Tensor | None], *, again: bool) -> int:
        """Count pre-activations of all members; returns the number of inputs of each."""
        size = z.stride(0) * z.element_size()
        for part, low in zip(parts, lows, strict=True):
            bounds = part.bounds if low is None else low.numpy()[:, None, :]
            counts, sums = self.counts[part.members], self.sums[part.members]
            accumulate_members(z.data_ptr() + part.members.start * size, z.shape[1], bounds, counts, sums)
        return z.shape[1]

    def add_gradient(self, gradient: Tensor) -> int:
        """Add the squares of ∂L/∂z; returns the number of inputs of each member."""
        add_squares_members(gradient.data_ptr(), gradient.shape[1], self._like, self.sums)
        return gradient.shape[1]

    def state(self) -> tuple[Tensor, Tensor]:
        """Copies of counts and sums."""
        return torch.from_numpy(self.counts.copy()), torch.from_numpy(self.sums.copy())

    def load(self, counts: Tensor, sums: Tensor) -> None:
        """Restore what `state` returned."""
        self.counts[:], self.sums[:] = counts.numpy(), sums.numpy()


class UnitSums:
    """Running sums of one site, whatever its layout and device: a unit of each member is a unit of its own.

    Args:
        parts: the members by their gates.
        site: the site of one member.
        device: device of the pre-activations.
    """

    def __init__(self, parts: Sequence[Part], site: Site, device: torch.device) -> None:
        assert site.axes is not None
        self._units, self._axes = site.size, site.axes
        self._parts = [
            (part.members, Accumulators((part.members.stop - part.members.start) * site.size, device))
            for part in parts
        ]

    def clear(self) -> None:
        """Start a new window; the count of inputs since a gate was last open continues."""
        for _, running in self._parts:
            running.clear()

    def add(self, z: Tensor, parts: Sequence[Part], lows: Sequence[Tensor | None], *, again: bool) -> int:
        """Count pre-activations (K, ...) of all members; returns the number of inputs of each."""
        axes, n = self._member_axes(z), 0
        for (members, running), part, low in zip(self._parts, parts, lows, strict=True):
            gate = part.gate
            if low is not None:
                gate = Gate(low=low.expand(-1, self._units).reshape(-1))
            assert gate is not None
            n = accumulate(running, z[members], axes, gate, same_forward=again)
        return n

    def add_gradient(self, gradient: Tensor) -> int:
        """Add the squares of ∂L/∂z; returns the number of inputs of each member."""
        axes, n = self._member_axes(gradient), 0
        for members, running in self._parts:
            n = accumulate_gradient(running, gradient[members], axes)
        return n

    def state(self) -> tuple[Tensor, Tensor]:
        """Copies of counts and sums, (K, 3, F) and (K, 5, F) on the CPU."""
        counts = [running.counts.view(3, -1, self._units).transpose(0, 1) for _, running in self._parts]
        sums = [running.sums.view(5, -1, self._units).transpose(0, 1) for _, running in self._parts]
        return torch.cat(counts).cpu(), torch.cat(sums).cpu()

    def load(self, counts: Tensor, sums: Tensor) -> None:
        """Restore what `state` returned."""
        for members, running in self._parts:
            running.counts.copy_(counts[members].transpose(0, 1).reshape(3, -1))
            running.sums.copy_(sums[members].transpose(0, 1).reshape(5, -1))

    def _member_axes(self, z: Tensor) -> tuple[int, ...]:
        """The member axis and the unit axes, counted from the end."""
        return (-z.ndim, *(axis if axis < 0 else axis + 1 - z.ndim for axis in self._axes))
