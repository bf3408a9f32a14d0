"""Surgery: the incoming and outgoing weights of single units, with the optimizer's memory of them.

Pure in that they touch what they are handed and nothing else; in place, as parameters have to be.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from harness.remedies.running import Running
from harness.remedies.wiring import Junction, parameter


@torch.no_grad()
def reset_incoming(
    junction: Junction, units: Tensor, rows: Tensor, running: Running, *, restart: bool
) -> None:
    """Give units new incoming weights and bias 0; a norm before the activation starts anew for them.

    Args:
        junction: around the units.
        units: (n,) int64.
        rows: (n, ...) the new weights.
        running: the optimizer's state, whose moments of these rows become 0.
        restart: whether the optimizer also counts its steps from 0 again for the parameters touched.

    Example:
        >>> import torch
        >>> from harness.remedies import TorchRunning, wire
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
        >>> junction = wire(model, torch.ones(1, 2)).junctions[0]
        >>> reset_incoming(junction, torch.tensor([1]), torch.ones(1, 2), TorchRunning(None), restart=False)
        >>> model[0].weight[1].tolist(), model[0].bias[1].item()
        ([1.0, 1.0], 0.0)
    """
    weight = parameter(junction.layer, "weight")
    weight[units] = rows.to(weight)
    touched = [weight]
    for module, name, value in (
        (junction.layer, "bias", 0.0),
        (junction.norm, "weight", 1.0),
        (junction.norm, "bias", 0.0),
    ):
        one = getattr(module, name, None)
        if isinstance(one, Tensor):
            one[units] = value
            touched.append(one)
    for name, value in (("running_mean", 0.0), ("running_var", 1.0)):
        statistic = getattr(junction.norm, name, None)
        if isinstance(statistic, Tensor):
            statistic[units] = value
    for one in touched:
        _forget(one, units, running, restart=restart)


@torch.no_grad()
def reset_outgoing(
    junction: Junction,
    units: Tensor,
    running: Running,
    *,
    restart: bool,
    means: Sequence[Tensor] | None = None,
) -> None:
    """Set the outgoing weights of units to 0.

    Args:
        junction: around the units.
        units: (n,) int64.
        running: the optimizer's state, whose moments of these weights become 0.
        restart: as for `reset_incoming`.
        means: for each outlet, (n,) what each unit gave it on average: added to its bias, if it has one,
            through the weights that are about to vanish, so that its mean stays what it was.

    Example:
        >>> import torch
        >>> from harness.remedies import TorchRunning, wire
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
        >>> junction = wire(model, torch.ones(1, 2)).junctions[0]
        >>> reset_outgoing(junction, torch.tensor([0, 2]), TorchRunning(None), restart=False)
        >>> (model[2].weight != 0).tolist()
        [[False, True, False]]
    """
    for place, outlet in enumerate(junction.outlets):
        weight, bias = parameter(outlet.layer, "weight"), getattr(outlet.layer, "bias", None)
        columns = torch.isin(outlet.columns, units).nonzero().squeeze(1)
        if means is not None and isinstance(bias, Tensor):
            of_unit = torch.zeros(junction.size, dtype=weight.dtype, device=weight.device)
            of_unit[units] = means[place].to(of_unit)
            given = weight[:, columns].flatten(2).sum(2) if weight.ndim > 2 else weight[:, columns]
            bias.add_((given * of_unit[outlet.columns[columns]]).sum(1))
        weight[:, columns] = 0
        for tensor in running.tensors(weight):
            tensor[:, columns] = 0
        if restart:
            running.restart(weight)


def _forget(value: Tensor, units: Tensor, running: Running, *, restart: bool) -> None:
    for tensor in running.tensors(value):
        tensor[units] = 0
    if restart:
        running.restart(value)
