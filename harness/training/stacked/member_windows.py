"""The windows of a stack: a Recorder's counts since the last census, with a leading member axis.

Legend: K members, A inputs, F units of a site, S sites, U units of all sites.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.activations.gates import Gate
from harness.config import RunSpec
from harness.graph.plan import Site
from harness.kernels.accumulators import Accumulators
from harness.kernels.numba_arguments import bounds_of
from harness.kernels.statistics import UnitStatistics, finalise
from harness.training.stacked import backend
from harness.training.stacked.member_gates import Part, parts_of
from harness.training.stacked.member_sums import HostSums, UnitSums
from harness.training.stacked.network import Seen
from harness.training.stacked.parameters import Parameter


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
        self._parts = [parts_of(own, form, dtype) for own, form in zip(gates, forms, strict=True)]
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
        self._n, self._grad_n = [saved["n"] for saved in state], [saved["grad_n"] for saved in state]
        for running, saved in zip(self._sums, state, strict=True):
            running.load(saved["counts"][rows], saved["sums"][rows])

    def _low(self, site: int, part: Part) -> Tensor | None:
        """Where gates that depend on slopes open, (members, slopes): everywhere, or at 0 like ReLU's."""
        if part.gate is not None:
            return None
        own = sorted(self._slopes[site], key=lambda p: p.members.start)
        span = part.members
        inside = [p.value for p in own if span.start <= p.members.start < span.stop]
        value = torch.cat(inside)
        closed = value.abs() <= self._eps[span, None]
        return torch.where(closed, 0.0, -torch.inf).to(value.dtype)
