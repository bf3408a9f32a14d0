"""Bias lift: raise the bias of units that are silent on a batch, so that they open on a share of it.

Our own method. A silent unit's bias grows just enough to open the gate on the given share of the inputs
(positions), at least on one; its incoming weights stay. Sites are lifted in the order of the forward pass, so
each sees the outputs of the lifted layers before it. The optimizer's moments of the bias and of the incoming
weights become 0; otherwise the momentum that silenced the unit would silence it again.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from harness.activations.registry import RECORDS
from harness.activations.stored import is_computed, stored
from harness.graph.unit_connections import UnitConnections
from harness.graph.units import UnitLayout, arranged, rows_of_places
from harness.recording.batches import Batch
from harness.remedies.events import RemedyEvent
from harness.remedies.optimizer_state import OptimizerStateView, TorchOptimizerState
from harness.remedies.wiring import select, trace

KIND = "bias_lift"
MARGIN = 0.01  # how far a pre-activation is lifted above 0 if the next input has the same one
ROUNDING = 8  # roundings of the larger of bias and pre-activation by which it is lifted above 0
OPENS_AT_ZERO = ("relu", "relu6", "clamp", "maximum")


def bias_lift(
    model: nn.Module,
    optimizer: Optimizer | Sequence[Optimizer] | None,
    batch: Batch,
    *,
    share: float = 0.1,
    sites: Collection[str] | None = None,
) -> list[RemedyEvent]:
    """Lift the biases of the units that are silent on a batch, in place.

    Args:
        model: any model; a forward pass finds the layer that computes each site's pre-activations.
        optimizer: the optimizer of its parameters, several, or None.
        batch: a tensor, a tuple whose first item is the input, or a dict of keyword arguments.
        share: share of the inputs on which a lifted unit should open, above 0 and at most 1. It opens on more
            if several inputs give the same pre-activation (all do, if `redo` has just cut off the units
            before it).
        sites: names of the sites to act on; None: all, each of which must then be treatable.

    Returns:
        One event for each site with silent units.

    Raises:
        ValueError: share is out of range, or a site cannot be lifted: no single layer computes its
            pre-activation, that layer has no stored bias or is called more than once, or the activation does
            not open at 0.

    Example:
        >>> model = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1))
        >>> _ = nn.init.ones_(model[0].weight), nn.init.constant_(model[0].bias, -9.0)
        >>> x = torch.arange(8.0).unsqueeze(1)
        >>> bias_lift(model, None, x, share=0.25)[0].units, int((model[:2](x) > 0).sum())
        (1, 2)
    """
    if not 0 < share <= 1:
        raise ValueError(f"share: expected a number above 0 and at most 1, but got {share!r}")
    able, refused = liftable(model, batch)
    return lift(model, batch, share, TorchOptimizerState(optimizer), select(able, refused, sites, "lifted"))


def liftable(model: nn.Module, batch: Batch) -> tuple[tuple[UnitConnections, ...], dict[str, str]]:
    """Return the sites whose units can be lifted, and for each other site the reason why not."""
    traced = trace(model, batch)
    able, refused = list[UnitConnections](), dict(traced.refused)
    uses = Counter(id(p) for module in model.modules() for p in module.parameters(recurse=False))
    for one in traced.found:
        if not one.site:
            continue
        if one.activation not in OPENS_AT_ZERO:
            known = one.activation in RECORDS
            refused[one.site] = f"{one.activation} {'is not silent below 0' if known else 'is declared'}"
        elif not isinstance(bias := stored(one.norm or one.layer, "bias"), nn.Parameter):
            computed = is_computed(one.norm or one.layer, "bias") or isinstance(bias, Tensor)
            refused[one.site] = f"the layer before it has {'a computed' if computed else 'no'} bias"
        elif not bias.requires_grad:
            refused[one.site] = "the bias of the layer before it is frozen"
        elif uses[id(bias)] > 1:
            refused[one.site] = "the layer before it shares its bias with another"
        elif one.repeated:
            refused[one.site] = "the layer before it is called more than once in a forward pass"
        else:
            able.append(one)
    return tuple(able), refused


def lift(
    model: nn.Module,
    batch: Batch,
    share: float,
    state: OptimizerStateView,
    connections: Sequence[UnitConnections],
) -> list[RemedyEvent]:
    """Lift the silent units of sites that are known to be liftable."""
    events: list[RemedyEvent] = []
    waiting = {one.site: one for one in connections}

    def raise_bias(site: str, z: Tensor, layout: UnitLayout) -> None:
        one = waiting.pop(site, None)
        if one is None:
            return
        value = arranged(z, layout)
        rows = rows_of_places(value, layout.axes)
        if not len(rows):
            return  # no input reached it
        size = bias_size(one)
        lifts = lifts_for(rows, share, size[: layout.size] if layout.rows is None else size[[*layout.rows]])
        if not lifts.any():
            return
        rates = rates_after(rows, lifts)
        units = list(range(-len(layout.axes), 0))
        value.movedim(layout.axes, units).add_(lifts.view([value.shape[axis] for axis in layout.axes]))
        of_layer = lifts.new_zeros(one.size)  # the site may have only some units of the layer, reordered
        of_layer[slice(layout.size) if layout.rows is None else list(layout.rows)] = lifts
        events.append(raise_biases(one, of_layer, rates, state))

    trace(model, batch, on_input=raise_bias)
    return events


def lifts_for(z: Tensor, share: float, size: Tensor | None = None) -> Tensor:
    """Return the increase of each unit's bias; 0 for units that open somewhere.

    The new gate lies halfway between the last input that should open it and the next one, and the last one at
    least above the rounding of the bias, which is as large as the bias was.

    Args:
        z: (A, F) pre-activations.
        share: share of the A inputs on which a lifted unit should open.
        size: (F,) size of the present bias; None: 0.

    Example:
        >>> lifts_for(torch.tensor([[-1.0, 5.0], [-2.0, -5.0], [-4.0, 0.0]]), 0.5)
        tensor([3., 0.])
    """
    inputs = len(z)
    opened = min(inputs, max(1, math.ceil(share * inputs - 1e-9)))
    highest = z.topk(min(inputs, opened + 1), dim=0).values
    last, following = highest[opened - 1], highest[-1]
    level = torch.where(last > following, (last + following) / 2, last - MARGIN)
    largest = last.abs() if size is None else torch.maximum(last.abs(), size)
    level = torch.minimum(level, last - ROUNDING * torch.finfo(z.dtype).eps * largest)
    silent = (highest[0] <= 0) & z.isfinite().all(0)
    return torch.where(silent, -level, torch.zeros_like(level))


def bias_size(connections: UnitConnections) -> Tensor:
    """The size of the biases of all units of the layer before a site, or of its norm."""
    bias = stored(connections.norm or connections.layer, "bias")
    assert isinstance(bias, Tensor)
    return bias.detach().abs()


def rates_after(z: Tensor, lifts: Tensor) -> Tensor:
    """Return the share of the inputs on which each lifted unit opens; ties can make it larger than requested.

    Args:
        z: (A, F) pre-activations before the lift.
        lifts: (F,) result of `lifts_for`.

    Example:
        >>> rates_after(torch.tensor([[-1.0, 5.0], [-1.0, 5.0]]), torch.tensor([1.01, 0.0]))
        tensor([1.])
    """
    lifted = lifts != 0
    return (z[:, lifted] + lifts[lifted] > 0).float().mean(0)


@torch.no_grad()
def raise_biases(
    connections: UnitConnections, lifts: Tensor, rates: Tensor, state: OptimizerStateView
) -> RemedyEvent:
    """Add the lifts to a site's bias, and zero the optimizer's moments of these units.

    Args:
        connections: connections of the units.
        lifts: (units of the layer,) 0 for units that stay.
        rates: result of `rates_after`.
        state: the optimizer's state.
    """
    units, layer, norm = lifts.nonzero().squeeze(1), connections.layer, connections.norm
    bias = stored(norm or layer, "bias")
    assert isinstance(bias, Tensor)
    bias.add_(lifts)
    for parameter in (stored(layer, "weight"), stored(norm, "weight"), bias):
        for tensor in state.tensors(parameter) if isinstance(parameter, Tensor) else ():
            tensor[units] = 0
    low, high = float(rates.min()), float(rates.max())
    span = f"{low:.2g}" if f"{low:.2g}" == f"{high:.2g}" else f"{low:.2g} to {high:.2g}"
    where = "all inputs" if low == 1 else f"{span} of the inputs"
    return RemedyEvent(KIND, connections.site, len(units), f"opened on {where}")
