"""Surgery: reset the incoming and outgoing weights of single units, and the optimizer's state for them.

The functions change only their arguments, in place.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from harness.activations.stored import stored
from harness.graph.unit_connections import UnitConnections
from harness.remedies.optimizer_state import OptimizerStateView
from harness.remedies.wiring import parameter


@torch.no_grad()
def reset_incoming(
    connections: UnitConnections, units: Tensor, rows: Tensor, state: OptimizerStateView, *, restart: bool
) -> None:
    """Give units new incoming weights and bias 0, and reset a norm before the activation for them.

    Args:
        connections: connections of the units.
        units: (n,) int64.
        rows: (n, ...) the new weights.
        state: the optimizer's state, whose moments of these rows become 0.
        restart: whether to reset the optimizer's step count for the parameters touched.

    Example:
        >>> import torch
        >>> from harness.remedies import TorchOptimizerState, wire
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
        >>> connections = wire(model, torch.ones(1, 2)).connections[0]
        >>> state = TorchOptimizerState(None)
        >>> reset_incoming(connections, torch.tensor([1]), torch.ones(1, 2), state, restart=False)
        >>> model[0].weight[1].tolist(), model[0].bias[1].item()
        ([1.0, 1.0], 0.0)
    """
    weight = parameter(connections.layer, "weight")
    weight[units] = rows.to(weight)
    touched = [weight]
    for module, name, value in (
        (connections.layer, "bias", 0.0),
        (connections.norm, "weight", 1.0),
        (connections.norm, "bias", 0.0),
    ):
        one = stored(module, name)
        if isinstance(one, Tensor):
            one[units] = value
            touched.append(one)
    for name, value in (("running_mean", 0.0), ("running_var", 1.0)):
        statistic = stored(connections.norm, name)
        if isinstance(statistic, Tensor):
            statistic[units] = value
    for one in touched:
        _forget(one, units, state, restart=restart)


@torch.no_grad()
def reset_outgoing(
    connections: UnitConnections,
    units: Tensor,
    state: OptimizerStateView,
    *,
    restart: bool,
    means: Sequence[Tensor] | None = None,
) -> None:
    """Set the outgoing weights of units to 0.

    Args:
        connections: connections of the units.
        units: (n,) int64.
        state: the optimizer's state, whose moments of these weights become 0.
        restart: as for `reset_incoming`.
        means: for each consumer, (n,) the mean output of each unit as the consumer reads it. It is multiplied
            by the old weights and added to the consumer's bias, if any, so that the mean stays the same.

    Example:
        >>> import torch
        >>> from harness.remedies import TorchOptimizerState, wire
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
        >>> connections = wire(model, torch.ones(1, 2)).connections[0]
        >>> reset_outgoing(connections, torch.tensor([0, 2]), TorchOptimizerState(None), restart=False)
        >>> (model[2].weight != 0).tolist()
        [[False, True, False]]
    """
    for place, consumer in enumerate(connections.consumers):
        weight, bias = parameter(consumer.layer, "weight"), stored(consumer.layer, "bias")
        columns = torch.isin(consumer.unit_index, units).nonzero().squeeze(1)
        if means is not None and isinstance(bias, Tensor):
            of_unit = torch.zeros(connections.size, dtype=weight.dtype, device=weight.device)
            of_unit[units] = means[place].to(of_unit)
            given = weight[:, columns].flatten(2).sum(2) if weight.ndim > 2 else weight[:, columns]
            bias.add_((given * of_unit[consumer.unit_index[columns]]).sum(1))
        weight[:, columns] = 0
        for tensor in state.tensors(weight):
            tensor[:, columns] = 0
        if restart:
            state.restart(weight)


def _forget(value: Tensor, units: Tensor, state: OptimizerStateView, *, restart: bool) -> None:
    for tensor in state.tensors(value):
        tensor[units] = 0
    if restart:
        state.restart(value)
