"""Redrawing: silent units of a layer that works, all units of one that does not; what they give stays."""

from __future__ import annotations

import copy
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from harness.remedies import RemedyEvent, TorchOptimizerState, wire
from harness.remedies.redrawing import redraw_layers

X = torch.rand(32, 6, generator=torch.Generator().manual_seed(0))


class Redrawn(NamedTuple):
    """The layers before and after, what was told, and Adam's running mean of the first weight."""

    before: tuple[nn.Linear, nn.Linear]
    after: tuple[nn.Linear, nn.Linear]
    events: list[RemedyEvent]
    moments: Tensor


def ones(name: str, weight: Tensor, units: Tensor) -> Tensor:
    return torch.ones(len(units), *weight.shape[1:])


def redrawn(silent: int) -> Redrawn:
    """A network of which some of the eight units in its only hidden layer are silent."""
    torch.manual_seed(0)
    first, last = nn.Linear(6, 8), nn.Linear(8, 4)
    model = nn.Sequential(first, nn.ReLU(), last)
    with torch.no_grad():
        first.weight.abs_()
        first.bias.fill_(0.5)
        first.bias[:silent] = -9.0
    optimizer = torch.optim.Adam(model.parameters())
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    before = copy.deepcopy(first), copy.deepcopy(last)
    wiring = wire(model, X)
    events = redraw_layers(wiring.connections, wiring.magnitudes, TorchOptimizerState(optimizer), ones)
    return Redrawn(before, (first, last), events, optimizer.state[first.weight]["exp_avg"])


@pytest.mark.parametrize(("silent", "drawn"), [(0, 0), (3, 3), (4, 8), (8, 8)])
def test_silent_units_are_drawn_and_all_of_a_layer_where_half_are(silent: int, drawn: int) -> None:
    found = redrawn(silent)
    (was, gave), (first, last) = found.before, found.after
    assert [(event.site, event.units) for event in found.events] == ([("1", drawn)] if drawn else [])
    assert torch.equal(first.weight[:drawn], torch.ones(drawn, 6))
    assert torch.equal(first.bias[:drawn], torch.zeros(drawn))
    assert torch.equal(first.weight[drawn:], was.weight[drawn:])
    assert torch.equal(last.weight, gave.weight)
    assert found.moments.abs().sum(1).ne(0).tolist() == [unit >= drawn for unit in range(8)]
