"""Recording of a stack: a Recorder's observations for all members at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from harness.config import RunSpec
from harness.kernels.dispatch import unit_squares
from harness.training.stacked.activations import SLOPED
from harness.training.stacked.batches import CohortData
from harness.training.stacked.census import DEAD, UNKNOWN, Change, Layout, Verdicts, last_known
from harness.training.stacked.member_gates import gates_of
from harness.training.stacked.member_windows import StackWindows
from harness.training.stacked.members import Observed
from harness.training.stacked.module import StackedModule
from harness.training.stacked.network import Seen, StackedMLP
from harness.training.stacked.parameters import Parameter


class Recording:
    """Counts at every step, and takes the censuses of all members together.

    Args:
        specs: the members, in the order of the stack.
        seen: what is observed in every member.
        network: the network of the stack; its slopes are read.
        parameters: parameters of the stack; their gradients are read.
    """

    def __init__(
        self,
        specs: Sequence[RunSpec],
        seen: Observed,
        network: StackedMLP | StackedModule,
        parameters: Sequence[Parameter],
    ) -> None:
        record = specs[0].record
        self._probing, self._gradients = record.probe, record.gradients
        sites = seen.sites
        self._layout, self._verdicts = Layout(sites), Verdicts(specs)
        named = {p.name: p for p in parameters}
        rows = isinstance(network, StackedMLP)
        gates = gates_of(specs, [module for _, module in seen.modules], own=rows)
        slopes = [
            [p for p in parameters if p.name in {f"{name}.{kind}" for kind in SLOPED.values()}]
            for name, _ in seen.modules
        ]
        first = parameters[0].value
        self._stream, self._probe = (
            StackWindows(specs, sites, gates, first.dtype, first.device, slopes, rows=rows) for _ in range(2)
        )
        self._network, self._members = network, len(specs)
        self._incoming = [
            [
                named[name]
                for name in (f"{site.single_producer}.weight", f"{site.single_producer}.bias")
                if name in named
            ]
            for site in sites
        ]
        shape = self._members, len(self._layout.units)
        self._norms = np.full(shape, np.nan)
        self._dead: np.ndarray | None = None  # (K, U), of the last census
        self._known = np.full(shape, UNKNOWN, np.int8)

    def begin(self) -> Seen:
        """Start a training pass; returns what receives its pre-activations."""
        return self._stream.begin()

    @property
    def backward(self) -> Seen | None:
        return self._stream.backward if self._gradients else None

    def read_gradients(self, scales: Tensor) -> None:
        """Compute the norms of the gradients of this step, for its census.

        Args:
            scales: (K,) factors by which clipping scales them.
        """
        if not self._gradients:
            return
        parts = []
        for site, parameters in zip(self._layout.sites, self._incoming, strict=True):
            units = self._members * site.size
            gradients = [p.grad.view(units, -1) for p in parameters]
            bias = gradients[1].view(units) if len(gradients) > 1 else None
            unknown = scales.new_full((units,), torch.nan)
            squares = unit_squares(gradients[0], bias) if gradients else unknown
            parts.append(squares.view(self._members, site.size))
        self._norms = (torch.cat(parts, 1).sqrt() * scales[:, None]).cpu().numpy()

    def before(self, data: CohortData) -> pa.RecordBatch | None:
        """Take the census of the probe before the first step; None without a probe."""
        if not self._probing:
            return None
        columns = self._pass(data)
        self._dead = columns["state"] == DEAD
        self._known = last_known(columns["state"], self._known)
        return self._layout.table([("probe", columns)], 0)

    def census(self, step: int, data: CohortData) -> tuple[pa.RecordBatch, list[Change]]:
        """Close the window, and return the rows of all members and their changes."""
        columns = self._stream.close()
        columns["grad_norm"] = self._norms
        self._verdicts.add(columns)
        parts = [("stream", columns)]
        if self._probing:
            parts.append(("probe", self._pass(data)))
        state = parts[-1][1]["state"]
        before, self._known = self._known, last_known(state, self._known)
        self._dead = state == DEAD
        changes = self._layout.changes(before, self._known)
        return self._layout.table(parts, step), changes

    @property
    def dead(self) -> np.ndarray:
        """(K, U) units that were dead at the last census."""
        assert self._dead is not None
        return self._dead

    def state(self) -> dict[str, Any]:
        """State as tensors and plain values."""
        dead = None if self._dead is None else torch.from_numpy(self._dead)
        norms = torch.from_numpy(self._norms)
        known = torch.from_numpy(self._known)
        windows = {"stream": self._stream.state(), "probe": self._probe.state()}
        return {**windows, "dead": dead, "known": known, "norms": norms}

    def load(self, state: dict[str, Any], places: Sequence[int] | None = None) -> None:
        """Restore what `state` returned, or the members at some places of it."""
        self._stream.load(state["stream"], places)
        self._probe.load(state["probe"], places)
        rows: Any = slice(None) if places is None else list(places)
        dead = state["dead"]
        self._dead = None if dead is None else dead.numpy()[rows]
        self._norms = state["norms"].numpy()[rows]
        self._known = state["known"].numpy()[rows]

    def _pass(self, data: CohortData) -> dict[str, np.ndarray]:
        for x in data.probe_batches():
            self._network.forward(x, self._probe.begin(), training=False)
        columns = self._probe.close()
        columns["grad_norm"] = np.full(columns["mean"].shape, np.nan)
        self._verdicts.add(columns)
        return columns
