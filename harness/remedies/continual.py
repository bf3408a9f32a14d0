"""Continual backprop: at every step, a few units of little use are made anew (Dohare et al. 2024).

Source: Nature 632:768 and arXiv 2306.13812. Utility u ← ηu + (1-η) |h| Σ|w_out|, corrected for its beginning;
a unit older than the maturity may be replaced; ρ times the number of such units is owed at each step, and
whole ones are paid with the least useful. A new unit has incoming weights of the initial law, bias 0 and
outgoing weights 0; the bias of each layer that reads it takes over what it gave on average (a layer without
bias does not). Moments of these weights become 0. The authors' Adam counts steps for every weight by itself;
torch's counts them for a whole parameter, so its count is left alone: at each replacement all would start
again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from harness.graph.unit_connections import Consumer, UnitConnections
from harness.hooks.hook import Call
from harness.recording.batches import Batch
from harness.remedies.events import RemedyEvent
from harness.remedies.initializers import DrawRows, Initializer, make_draw
from harness.remedies.optimizer_state import OptimizerStateView, TorchOptimizerState
from harness.remedies.surgery import reset_incoming, reset_outgoing
from harness.remedies.utility import Utilities
from harness.remedies.wiring import parameter, select, wire

KIND = "continual_backprop"


class Replacement:
    """Continual backprop of one model whose wiring is known."""

    def __init__(
        self,
        connections: Sequence[UnitConnections],
        state: OptimizerStateView,
        rate: float,
        maturity: int,
        decay: float,
    ) -> None:
        self._connections, self._state, self._decay = connections, state, decay
        self._numbers = [torch.tensor([x], dtype=torch.float64) for x in (rate, maturity, decay)]
        self._utilities = [Utilities(1, len(j.consumers), j.size) for j in connections]
        self._inputs: dict[tuple[int, int], Tensor] = {}
        self._handles: list[RemovableHandle] = [
            consumer.layer.register_forward_pre_hook(Call(partial(self._keep, (place, number))))
            for place, one in enumerate(connections)
            for number, consumer in enumerate(one.consumers)
        ]

    @torch.no_grad()
    def replace_due(self, draw: DrawRows) -> list[RemedyEvent]:
        """Count the last training forward, and replace what is due."""
        if len(self._inputs) < len(self._handles):
            raise RuntimeError("step() came without a forward pass in training mode: call it once after each")
        rate, maturity, decay = self._numbers
        due = []
        for place, (one, utilities) in enumerate(zip(self._connections, self._utilities, strict=True)):
            given = [
                given_to(consumer, self._inputs[place, number], one.size)
                for number, consumer in enumerate(one.consumers)
            ]
            contribution = sum(size * outgoing for size, _, outgoing in given)
            assert isinstance(contribution, Tensor)
            means = torch.stack([mean for _, mean, _ in given])
            utilities.update(contribution.cpu().unsqueeze(0), means.cpu().unsqueeze(0), decay)
            due.append(utilities.choose(rate, maturity, decay)[0])
        self._inputs.clear()
        return [
            replace(one, utilities, 0, units, self._state, draw, self._decay)
            for one, utilities, units in zip(self._connections, self._utilities, due, strict=True)
            if len(units)
        ]

    def close(self) -> None:
        """Take the hooks off the model."""
        for handle in self._handles:
            handle.remove()

    def state_dict(self) -> dict[str, Any]:
        """Utilities, ages and what is owed, by site."""
        sites = [one.site for one in self._connections]
        return {site: utilities.state() for site, utilities in zip(sites, self._utilities, strict=True)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue what `state_dict` returned."""
        for one, utilities in zip(self._connections, self._utilities, strict=True):
            utilities.load(state[one.site])

    def _keep(self, key: tuple[int, int], layer: nn.Module, args: tuple[Tensor, ...]) -> None:
        if layer.training:
            self._inputs[key] = args[0].detach()


class ContinualBackprop(Replacement):
    """Replaces units of a model while it is trained: call `step` after each step of the optimizer.

    Args:
        model: any model; layers before and behind each site are found from a forward pass.
        optimizer: what steps its parameters.
        batch: for that forward pass.
        rate: ρ, share of the mature units replaced per step.
        maturity: steps before a unit may be replaced.
        decay: η of the running means.
        generator: for the new weights, on the CPU; None: torch's own.
        init: fills a whole weight in place, (weight, generator); None: PyTorch's default law.
        sites: names of the sites to act on; None: all, each of which must then be possible.

    Raises:
        ValueError: a number out of range, or a site that cannot be treated (see `redo`).

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> remedy = ContinualBackprop(model, optimizer, torch.ones(1, 4), rate=0.25, maturity=3)
        >>> for _ in range(4):
        ...     model(torch.randn(16, 4)).square().mean().backward()
        ...     optimizer.step()
        ...     events = remedy.step()
        >>> [(event.site, event.units) for event in events]
        [('1', 2)]
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer | Sequence[Optimizer] | None,
        batch: Batch,
        *,
        rate: float = 1e-4,
        maturity: int = 100,
        decay: float = 0.99,
        generator: torch.Generator | None = None,
        init: Initializer | None = None,
        sites: Collection[str] | None = None,
    ) -> None:
        if not 0 < rate <= 1:
            raise ValueError(f"rate: expected a number above 0 and at most 1, but got {rate!r}")
        if maturity < 0:
            raise ValueError(f"maturity: expected a whole number of at least 0, but got {maturity!r}")
        if not 0 <= decay < 1:
            raise ValueError(f"decay: expected a number at least 0 and below 1, but got {decay!r}")
        wiring = wire(model, batch)
        connections = select(wiring.connections, wiring.refused, sites)
        super().__init__(connections, TorchOptimizerState(optimizer), rate, maturity, decay)
        self._draw = make_draw(init, generator)

    def step(self) -> list[RemedyEvent]:
        """Count the last training forward, and replace what is due.

        Raises:
            RuntimeError: there was no forward in training mode since the last call.
        """
        return self.replace_due(self._draw)


def given_to(consumer: Consumer, x: Tensor, units: int) -> tuple[Tensor, Tensor, Tensor]:
    """What a layer is given by each unit (F,): mean |h|, mean h, and Σ|w| over the weights that read it."""
    weight = parameter(consumer.layer, "weight")
    values = x.double().movedim(-1 if weight.ndim == 2 else 1 - weight.ndim, -1).flatten(0, -2)
    read = weight.abs().double().movedim(1, -1).flatten(0, -2).sum(0)
    zeros = read.new_zeros(units)
    share = zeros.index_add(0, consumer.unit_index, torch.ones_like(read))
    size = zeros.index_add(0, consumer.unit_index, values.abs().mean(0)) / share
    mean = zeros.index_add(0, consumer.unit_index, values.mean(0)) / share
    return size, mean, zeros.index_add(0, consumer.unit_index, read)


def replace(
    connections: UnitConnections,
    utilities: Utilities,
    network: int,
    units: Tensor,
    state: OptimizerStateView,
    draw: DrawRows,
    decay: float,
) -> RemedyEvent:
    """Make some units of one network's site anew."""
    weight = parameter(connections.layer, "weight")
    there = units.to(weight.device)
    means = [mean.to(weight.device) for mean in utilities.mean_of(network, units, decay)]
    reset_incoming(connections, there, draw(connections.name, weight, units), state, restart=False)
    reset_outgoing(connections, there, state, restart=False, means=means)
    utilities.forget(network, units)
    return RemedyEvent(KIND, connections.site, len(units), "least utility among the mature")
