"""The windows of a stack: a Recorder's counts since the last census, with a leading member axis.

Legend: K members, A inputs, F units of a site, S sites, U units of all sites.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from harness.activations.declared import declared_class
from harness.activations.gates import Gate
from harness.activations.lookup import lookup
from harness.config import RunSpec
from harness.graph.plan import Site
from harness.kernels.accumulators import INPUTS_SINCE_ACTIVE, MAX, Accumulators
from harness.kernels.dispatch import accumulate, accumulate_gradient
from harness.kernels.numba import accumulate_members
from harness.kernels.numba_arguments import bounds_of
from harness.kernels.numba_gradients import add_squares_members
from harness.kernels.numba_intrinsics import LIKE
from harness.kernels.statistics import UnitStatistics, finalise
from harness.training.models import activation_of, make_activation
from harness.training.stacked import backend
from harness.training.stacked.network import Seen
from harness.training.stacked.parameters import Parameter


class _Part(NamedTuple):
    """Neighbouring members whose gates have the same form, or are equal."""

    members: slice
    gate: Gate | None  # of the first of them; None: it depends on their slopes
    bounds: np.ndarray | None  # (members, 1 or 4, 1) of all


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

    def add(self, z: Tensor, parts: Sequence[_Part], lows: Sequence[Tensor | None], *, again: bool) -> int:
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

    def __init__(self, parts: Sequence[_Part], site: Site, device: torch.device) -> None:
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

    def add(self, z: Tensor, parts: Sequence[_Part], lows: Sequence[Tensor | None], *, again: bool) -> int:
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


class StackWindows:
    """The running sums of every site of a stack.

    Args:
        specs: the members, in the order of the stack.
        sites: sites of every member.
        gates: at each site the gate of each member; None: it depends on the slopes.
        dtype: dtype of the pre-activations.
        device: their device.
        slopes: parameters at each site that hold slopes (of PReLU, or set by a remedy).
        rows: whether every pre-activation is (K, A, F) in memory.
    """

    def __init__(
        self,
        specs: Sequence[RunSpec],
        sites: Sequence[Site],
        gates: Sequence[Sequence[Gate | None]],
        dtype: torch.dtype,
        device: torch.device,
        slopes: Sequence[Sequence[Parameter]],
        *,
        rows: bool,
    ) -> None:
        self._slopes, self._sites, self._members = slopes, sites, len(specs)
        self._eps = torch.tensor([spec.record.gate_eps for spec in specs], dtype=dtype, device=device)
        if rows and backend.compiled(device):
            forms = [[gate and bounds_of(gate, dtype).shape for gate in own] for own in gates]
            self._sums: list[Any] = [HostSums(len(specs), site.size, dtype) for site in sites]
        else:
            forms = gates
            self._sums = []
        self._parts = [_parts(own, form, dtype) for own, form in zip(gates, forms, strict=True)]
        if not self._sums:
            self._sums = [UnitSums(p, site, device) for p, site in zip(self._parts, sites, strict=True)]
        self._n, self._grad_n = [0] * len(sites), [0] * len(sites)
        self._called: set[int] = set()

    def begin(self) -> Seen:
        """Start a forward pass; returns what receives its pre-activations."""
        self._called.clear()
        return self._forward

    def _forward(self, site: int, z: Tensor) -> None:
        """Add the pre-activations of all members to the counts."""
        parts = self._parts[site]
        lows = [self._low(site, part) for part in parts]
        self._n[site] += self._sums[site].add(z, parts, lows, again=site in self._called)
        self._called.add(site)

    def backward(self, site: int, gradient: Tensor) -> None:
        """Add the squares of ∂L/∂z of all members."""
        self._grad_n[site] += self._sums[site].add_gradient(gradient)

    def close(self) -> dict[str, np.ndarray]:
        """Return the columns of a census, each (K, U), and start new windows."""
        parts = []
        for number, (site, running) in enumerate(zip(self._sites, self._sums, strict=True)):
            flat = Accumulators(0, "cpu")
            flat.counts, flat.sums = (x.transpose(0, 1).flatten(1) for x in running.state())
            found = finalise(UnitStatistics(self._n[number], self._grad_n[number], flat))
            parts.append({name: column.reshape(self._members, site.size) for name, column in found.items()})
            running.clear()
        self._n, self._grad_n = [0] * len(parts), [0] * len(parts)
        return {name: np.concatenate([part[name] for part in parts], 1) for name in parts[0]}

    def state(self) -> list[dict[str, Any]]:
        """State as tensors and plain values."""
        whole = zip(self._n, self._grad_n, (running.state() for running in self._sums), strict=True)
        return [{"n": n, "grad_n": g, "counts": c, "sums": s} for n, g, (c, s) in whole]

    def load(self, state: Sequence[dict[str, Any]], places: Sequence[int] | None = None) -> None:
        """Restore what `state` returned, or the members at some places of it."""
        rows: Any = slice(None) if places is None else list(places)
        self._n, self._grad_n = [kept["n"] for kept in state], [kept["grad_n"] for kept in state]
        for running, kept in zip(self._sums, state, strict=True):
            running.load(kept["counts"][rows], kept["sums"][rows])

    def _low(self, site: int, part: _Part) -> Tensor | None:
        """Where gates that depend on slopes open, (members, slopes): everywhere, or at 0 like ReLU's."""
        if part.gate is not None:
            return None
        own = sorted(self._slopes[site], key=lambda p: p.members.start)
        span = part.members
        inside = [p.value for p in own if span.start <= p.members.start < span.stop]
        value = torch.cat(inside)
        closed = value.abs() <= self._eps[span, None]
        return torch.where(closed, 0.0, -torch.inf).to(value.dtype)


def gates_of(specs: Sequence[RunSpec], modules: Sequence[nn.Module], *, own: bool) -> list[list[Gate | None]]:
    """Return the gates of each member at each site; None if a gate can change.

    Args:
        specs: the members.
        modules: the activation module of each site, of the first member.
        own: whether members differ in activation, which their specifications then give.

    Raises:
        ValueError: the gates of a module are its own, as it declares them.
    """
    if own:
        gates = [_gate(make_activation(activation_of(spec), 1), spec.record.gate_eps) for spec in specs]
        return [gates] * len(modules)
    return [[_gate(module, spec.record.gate_eps) for spec in specs] for module in modules]


def _gate(module: nn.Module, eps: float) -> Gate | None:
    found = lookup(module)
    name = type(module).__name__
    if found is None or declared_class(type(module)) is not None:
        raise ValueError(f"{name}: a stack counts torch's activations, not those that declare their gates")
    gate = found[1](module, eps)
    if isinstance(gate.low, Tensor) and found[0] != "prelu":
        raise ValueError(f"{name}: its gates depend on its parameters")
    return None if isinstance(gate.low, Tensor) else gate


def _parts(gates: Sequence[Gate | None], forms: Sequence[object], dtype: torch.dtype) -> list[_Part]:
    """Group neighbouring members whose gates have equal forms."""
    cuts = [0, *(k for k in range(1, len(forms)) if forms[k] != forms[k - 1]), len(forms)]
    found = []
    for start, stop in pairwise(cuts):
        bounds = [bounds_of(gate, dtype) for gate in gates[start:stop] if gate is not None]
        found.append(_Part(slice(start, stop), gates[start], np.stack(bounds) if bounds else None))
    return found
