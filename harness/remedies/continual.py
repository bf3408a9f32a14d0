"""Continual backprop: reinitialise a few units of low utility at every step (Dohare et al. 2024).

Source: Nature 632:768 and arXiv 2306.13812. The utility u ← ηu + (1-η) |h| Σ|w_out| is bias-corrected. Units
older than the maturity are eligible; each step adds ρ times their number to a replacement count, and its
whole part is paid off by replacing the least useful ones. A new unit gets incoming weights from the initial
distribution, bias 0 and outgoing weights 0; the bias of each layer that reads it (if it has one) absorbs the
old unit's mean contribution. The optimizer's moments of these weights become 0. The authors' Adam counts
steps per weight. Torch's counts them per parameter, so the count stays: resetting it at each replacement
would restart the bias correction of all weights.
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
    """Continual backprop for one model with known connections."""

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
            consumer.layer.register_forward_pre_hook(
                Call(keep := partial(self._keep, (place, number)), traced=keep), with_kwargs=True
            )
            for place, one in enumerate(connections)
            for number, consumer in enumerate(one.consumers)
        ]

    @torch.no_grad()
    def replace_due(self, draw: DrawRows) -> list[RemedyEvent]:
        """Update the utilities from the last forward pass in training mode, and replace the units due."""
        if len(self._inputs) < len(self._handles):
            raise RuntimeError(
                "step() came without a forward pass of the model in training mode: call it once after each"
            )
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
        """Remove the hooks from the model."""
        for handle in self._handles:
            handle.remove()

    def state_dict(self) -> dict[str, Any]:
        """Utilities, ages and outstanding replacements, by site."""
        sites = [one.site for one in self._connections]
        return {site: utilities.state() for site, utilities in zip(sites, self._utilities, strict=True)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        for one, utilities in zip(self._connections, self._utilities, strict=True):
            utilities.load(state[one.site])

    def _keep(
        self, key: tuple[int, int], layer: nn.Module, args: tuple[Tensor, ...], named: Mapping[str, Any]
    ) -> None:
        if layer.training:
            self._inputs[key] = (args[0] if args else named["input"]).detach()


class ContinualBackprop(Replacement):
    """Replaces units of a model during training: call `step` after each optimizer step.

    Args:
        model: any model; a forward pass finds the layers before and after each site.
        optimizer: the optimizer of its parameters, several, or None.
        batch: inputs for that forward pass.
        rate: ρ, share of the mature units replaced per step.
        maturity: steps before a unit may be replaced.
        decay: η of the running means.
        generator: CPU generator for the new weights; None: torch's global one.
        init: fills a whole weight in place, (weight, generator); None: PyTorch's default initialisation.
        sites: names of the sites to act on; None: all, each of which must then be treatable.

    Raises:
        ValueError: a number is out of range, or a site cannot be treated (see `redo`).

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
        """Update the utilities from the last forward pass in training mode, and replace the units due.

        Raises:
            RuntimeError: there was no forward pass in training mode since the last call.
        """
        return self.replace_due(self._draw)


def given_to(consumer: Consumer, x: Tensor, units: int) -> tuple[Tensor, Tensor, Tensor]:
    """What a layer reads from each unit (F,): mean |h|, mean h, and Σ|w| over the weights that read it."""
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
    """Reinitialise some units of a site in one network."""
    weight = parameter(connections.layer, "weight")
    there = units.to(weight.device)
    means = [mean.to(weight.device) for mean in utilities.mean_of(network, units, decay)]
    reset_incoming(connections, there, draw(connections.name, weight, units), state, restart=False)
    reset_outgoing(connections, there, state, restart=False, means=means)
    utilities.forget(network, units)
    return RemedyEvent(KIND, connections.site, len(units), "least utility among the mature")
