"""The windows of a stack: a Recorder's counts since the last census, with a leading member axis.

Legend: K members, A inputs, F units of a site, S sites, U units of all sites.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.activations.lookup import lookup
from harness.config import RunSpec
from harness.config.schema import Activation
from harness.kernels.accumulators import INPUTS_SINCE_ACTIVE, MAX, Accumulators
from harness.kernels.numba import accumulate_members
from harness.kernels.numba_arguments import bounds_of
from harness.kernels.numba_gradients import add_squares_members
from harness.kernels.numba_intrinsics import LIKE
from harness.kernels.statistics import UnitStatistics, finalise
from harness.training.models import activation_of, make_activation
from harness.training.stacked.parameters import Parameter


class MemberStatistics:
    """Running sums of one site: counts (K, 3, F) int64 and sums (K, 5, F), rows as in `UnitStatistics`."""

    def __init__(self, members: int, units: int) -> None:
        self.n = self.grad_n = 0
        self.counts, self.sums = np.zeros((members, 3, units), np.int64), np.zeros((members, 5, units))
        self.sums[:, MAX] = -np.inf

    def clear(self) -> None:
        """Start a new window; the count of inputs since a gate was last open continues."""
        self.n = self.grad_n = 0
        self.counts[:, :INPUTS_SINCE_ACTIVE] = 0
        self.sums[:] = 0
        self.sums[:, MAX] = -np.inf

    def columns(self) -> dict[str, np.ndarray]:
        """Return the census columns of `finalise`, each (K, F)."""
        members, _, units = self.counts.shape
        flat = Accumulators(0, "cpu")
        flat.counts = torch.from_numpy(self.counts.transpose(1, 0, 2).reshape(3, -1))
        flat.sums = torch.from_numpy(self.sums.transpose(1, 0, 2).reshape(5, -1))
        found = finalise(UnitStatistics(self.n, self.grad_n, flat))
        return {name: column.reshape(members, units) for name, column in found.items()}


class StackWindows:
    """The running sums of every site of a stack.

    Args:
        specs: the members, in the order of the stack.
        sizes: F of each site.
        dtype: dtype of the pre-activations.
        slopes: parameters at each site that hold slopes (of PReLU, or set by a remedy).
    """

    def __init__(
        self,
        specs: Sequence[RunSpec],
        sizes: Sequence[int],
        dtype: torch.dtype,
        slopes: Sequence[Sequence[Parameter]],
    ) -> None:
        self.statistics = [MemberStatistics(len(specs), size) for size in sizes]
        self._like = LIKE[dtype]
        self._slopes = slopes
        self._eps = np.array([spec.record.gate_eps for spec in specs])
        runs = _runs([_bounds(activation_of(s), s.record.gate_eps, dtype) for s in specs])
        self._parts = [
            [(part, bounds, running.counts[part], running.sums[part]) for part, bounds in runs]
            for running in self.statistics
        ]

    def forward(self, site: int, z: Tensor) -> None:
        """Add pre-activations (K, A, F) to the counts."""
        rows, address = z.shape[1], z.data_ptr()
        size = z.stride(0) * z.element_size()
        for part, bounds, counts, sums in self._parts[site]:
            gates = self._learned(site, part) if bounds is None else bounds
            accumulate_members(address + part.start * size, rows, gates, counts, sums)
        self.statistics[site].n += rows

    def backward(self, site: int, gradient: Tensor) -> None:
        """Add the squares of ∂L/∂z (K, A, F)."""
        running = self.statistics[site]
        add_squares_members(gradient.data_ptr(), gradient.shape[1], self._like, running.sums)
        running.grad_n += gradient.shape[1]

    def close(self) -> dict[str, np.ndarray]:
        """Return the columns of a census, each (K, U), and start new windows."""
        parts = [running.columns() for running in self.statistics]
        for running in self.statistics:
            running.clear()
        return {name: np.concatenate([part[name] for part in parts], 1) for name in parts[0]}

    def state(self) -> list[dict[str, Any]]:
        """State as tensors and plain values."""
        return [
            {
                "n": running.n,
                "grad_n": running.grad_n,
                "counts": torch.from_numpy(running.counts.copy()),
                "sums": torch.from_numpy(running.sums.copy()),
            }
            for running in self.statistics
        ]

    def load(self, state: Sequence[dict[str, Any]], places: Sequence[int] | None = None) -> None:
        """Restore what `state` returned, or the members at some places of it."""
        rows: Any = slice(None) if places is None else list(places)
        for running, kept in zip(self.statistics, state, strict=True):
            running.n, running.grad_n = kept["n"], kept["grad_n"]
            running.counts[:] = kept["counts"].numpy()[rows]
            running.sums[:] = kept["sums"].numpy()[rows]

    def _learned(self, site: int, part: slice) -> np.ndarray:
        """Current gates (members, 1, F): open everywhere, or like ReLU's where the slope is about 0."""
        own = sorted(self._slopes[site], key=lambda p: p.members.start)
        inside = [p.value.numpy() for p in own if part.start <= p.members.start < part.stop]
        value = np.concatenate(inside)
        closed = np.abs(value) <= self._eps[part, None].astype(value.dtype)
        return np.where(closed, 0.0, -np.inf).astype(value.dtype)[:, None, :]


def _bounds(activation: Activation, eps: float, dtype: torch.dtype) -> np.ndarray | None:
    """Return the gate of a member, (1 or 4, 1); None if it can change."""
    module = make_activation(activation, 1)
    known = lookup(module)
    assert known is not None, f"{activation.name} has no gate"
    gate = known[1](module, eps)
    return None if isinstance(gate.low, Tensor) else bounds_of(gate, dtype)


def _runs(bounds: Sequence[np.ndarray | None]) -> list[tuple[slice, np.ndarray | None]]:
    """Group neighbouring members whose gates have the same form: their slice and gates (members, ·, 1)."""
    forms = [None if b is None else b.shape for b in bounds]
    cuts = [0, *(k for k in range(1, len(forms)) if forms[k] != forms[k - 1]), len(forms)]
    found = []
    for start, stop in pairwise(cuts):
        given = [b for b in bounds[start:stop] if b is not None]
        found.append((slice(start, stop), np.stack(given) if given else None))
    return found
