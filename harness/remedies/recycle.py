"""ReDo: recycle dormant units (Sokar et al. 2023, arXiv 2302.12902).

The score of a unit is its mean |activation| over that of its layer. Units with a score of at most τ get new
incoming weights, bias 0 and outgoing weights 0. The optimizer's moments of these weights become 0, and Adam's
step count restarts for the parameters touched. The PyTorch port does so too and calls it crucial: otherwise
the first steps of the new weights would be several times the learning rate.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from harness.graph.unit_connections import UnitConnections
from harness.recording.batches import Batch
from harness.remedies.events import RemedyEvent
from harness.remedies.initializers import DrawRows, Initializer, make_draw
from harness.remedies.optimizer_state import OptimizerStateView, TorchOptimizerState
from harness.remedies.surgery import reset_incoming, reset_outgoing
from harness.remedies.wiring import parameter, select, wire

KIND = "redo"


def redo(
    model: nn.Module,
    optimizer: Optimizer | Sequence[Optimizer] | None,
    batch: Batch,
    *,
    tau: float = 0.0,
    generator: torch.Generator | None = None,
    init: Initializer | None = None,
    sites: Collection[str] | None = None,
) -> list[RemedyEvent]:
    """Recycle the units of a model that are dormant on a batch, in place.

    With τ = 0 the output on that batch stays the same to the last bit: such units contributed 0 to every
    layer that reads them, and still do. The measuring pass runs in the model's current mode.

    Args:
        model: any model; a forward pass finds the layers before and after each site.
        optimizer: the optimizer of its parameters, several, or None.
        batch: a tensor, a tuple whose first item is the input, or a dict of keyword arguments.
        tau: a unit is dormant if its score is at most this.
        generator: CPU generator for the new weights; None: torch's global one.
        init: fills a whole weight in place, (weight, generator); None: PyTorch's default initialisation.
        sites: names of the sites to act on; None: all, each of which must then be treatable.

    Returns:
        One event for each site with dormant units.

    Raises:
        ValueError: tau is not a finite number of at least 0, or a site cannot be treated: its pre-activation
            is a residual sum, its output cannot be followed, layers are shared, or a norm mixes its units.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1))
        >>> _ = nn.init.constant_(model[0].bias, -100.0)
        >>> x = torch.ones(2, 4)
        >>> before = model(x)
        >>> [event.units for event in redo(model, None, x)], torch.equal(model(x), before)
        ([3], True)
    """
    if not isinstance(tau, int | float) or not 0 <= tau < float("inf"):
        raise ValueError(f"tau: expected a number at least 0, but got {tau!r}")
    wiring = wire(model, batch)
    connections = select(wiring.connections, wiring.refused, sites)
    draw = make_draw(init, generator)
    return recycle(connections, wiring.magnitudes, TorchOptimizerState(optimizer), tau, draw)


def dormant(magnitudes: Tensor, tau: float) -> Tensor:
    """Mask of the units (…, units) with a score of at most τ, given sums of |activation|; none if one is NaN.

    Example:
        >>> dormant(torch.tensor([0.0, 1.0, 3.0]), 0.75)
        tensor([ True,  True, False])
    """
    return magnitudes <= tau * magnitudes.mean(-1, keepdim=True)


def recycle(
    connections: Sequence[UnitConnections],
    magnitudes: Mapping[str, Tensor],
    state: OptimizerStateView,
    tau: float,
    draw: DrawRows,
    lots: torch.Generator | None = None,
) -> list[RemedyEvent]:
    """Recycle the dormant units of some sites: first all incoming weights, then all outgoing ones.

    Thus the weights between two new units are 0, as in the authors' code.

    Args:
        connections: connections of the sites.
        magnitudes: site → (units,), the sum of |activation| over a batch.
        state: the optimizer's state, whose moments of the new weights become 0.
        tau: a unit is dormant if its score is at most this.
        draw: draws new weights.
        lots: CPU generator; of every site as many units as are dormant are drawn with it, and recycled in
            their place. This is a placebo: what it achieves is not due to the choice of units.
    """
    found = [(one, dormant(magnitudes[one.site], tau).nonzero().squeeze(1)) for one in connections]
    if lots is not None:
        found = [(one, _drawn(units, one.size, lots)) for one, units in found]
    found = [(one, units) for one, units in found if len(units)]
    for one, units in found:
        rows = draw(one.name, parameter(one.layer, "weight"), units)
        reset_incoming(one, units, rows, state, restart=True)
    for one, units in found:
        reset_outgoing(one, units, state, restart=True)
    rule = f"{'' if lots is None else 'at random, as many as '}score at most {tau:g}"
    return [RemedyEvent(KIND, one.site, len(units), rule) for one, units in found]


def _drawn(units: Tensor, size: int, lots: torch.Generator) -> Tensor:
    """As many units, drawn without replacement from all of the site, in ascending order."""
    return torch.randperm(size, generator=lots)[: len(units)].sort().values.to(units.device)
