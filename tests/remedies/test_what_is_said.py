"""Remedies say what they did: on how many inputs units open, and what happens behind them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import harness
from harness.remedies import bias_lift, leaky_swap, redo


def mlp(*, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4))


def inputs(count: int = 100) -> Tensor:
    return torch.randn(count, 8, generator=torch.Generator().manual_seed(0))


def shares(model: Any, upto: int, x: Tensor) -> Tensor:
    with torch.no_grad():
        return (model[:upto](x) > 0).double().mean(0)


def test_behind_redo_units_open_on_all_inputs_and_it_is_said() -> None:
    model, x = mlp(), inputs()
    with torch.no_grad():
        model[0].bias.fill_(-50.0)
        model[2].bias.fill_(-5.0)
    redo(model, None, x)
    event = bias_lift(model, None, x, sites=["3"])[0]
    assert shares(model, 4, x).min() == 1
    assert event.detail == "opened on all inputs"


@pytest.mark.parametrize("count", [7, 64, 100])
def test_the_share_that_is_said_is_the_share_that_opens(count: int) -> None:
    model, x = mlp(), inputs(count)
    nn.init.constant_(model[0].bias, -50.0)
    event = bias_lift(model, None, x, share=0.25, sites=["1"])[0]
    assert event.detail == f"opened on {float(shares(model, 2, x).mean()):.2g} of the inputs"


def test_inputs_that_repeat_open_more_than_was_asked_for() -> None:
    model = mlp()
    x = inputs(20)[torch.arange(100) % 2]  # two inputs, fifty times each
    nn.init.constant_(model[0].bias, -50.0)
    event = bias_lift(model, None, x, share=0.1, sites=["1"])[0]
    opened = shares(model, 2, x)
    assert opened.min() == 0.5
    assert event.detail in ("opened on 0.5 of the inputs", "opened on 0.5 to 1 of the inputs")


@pytest.mark.parametrize("seed", [0, 3, 4])
def test_a_swap_that_silences_others_says_so(seed: int) -> None:
    model, x = mlp(seed=seed), inputs()
    with torch.no_grad():
        model[0].bias[:40] -= 300
    before = harness.scan(model, x).summary.set_index("site")["dead"]
    events = leaky_swap(model, x)
    dead = harness.scan(model, x).summary.set_index("site")["dead"]
    assert dead["3"] > before["3"]
    assert f"units behind that fell silent by it: {dead['3']} of 3" in events[-1].detail
    leaky_swap(model, x)
    assert harness.scan(model, x).dead_fraction == 0


def test_a_swap_that_silences_none_says_nothing_of_it() -> None:
    model = mlp()
    with torch.no_grad():
        model[0].bias[:4] -= 50
        model[2].bias.fill_(5.0)
    assert [event.detail for event in leaky_swap(model, inputs())] == ["slope 0.01"]


# --- layers of one's own ------------------------------------------------------------------------------


class OwnLinear(nn.Module):
    """As graph libraries write it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / inputs**0.5)
        self.bias = nn.Parameter(torch.full((outputs,), -30.0))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight, self.bias)


class Gin(nn.Module):
    """A graph isomorphism layer: an MLP over sums of neighbours."""

    def __init__(self, *, norm: bool, layer: Any) -> None:
        super().__init__()
        self.eps = nn.Parameter(torch.zeros(1))
        self.one, self.two, self.head = layer(8, 16), layer(16, 16), nn.Linear(16, 3)
        self.norm = nn.BatchNorm1d(16) if norm else nn.Identity()
        for module in (self.one, self.two, *([self.norm] if norm else [])):
            nn.init.constant_(module.bias, -30.0)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        near = torch.eye(len(x)).roll(1, 0)
        h = near @ x + (1 + self.eps) * x
        h = torch.relu(self.two(torch.relu(self.norm(self.one(h)))))
        return self.head(near @ h + h)


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("layer", [OwnLinear, nn.Linear])
def test_a_graph_networks_mlp_is_lifted(norm: bool, layer: Any) -> None:
    torch.manual_seed(0)
    model, x = Gin(norm=norm, layer=layer), inputs()
    model.eval()
    assert harness.scan(model, x).dead_fraction == 1
    assert [event.units for event in bias_lift(model, None, x)] == [16, 16]
    assert harness.scan(model, x).dead_fraction == 0


def test_a_layer_of_ones_own_that_changes_its_weight_is_still_refused() -> None:
    class Scaled(OwnLinear):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.linear(x, 2 * self.weight, self.bias)

    model = nn.Sequential(Scaled(8, 16), nn.ReLU(), nn.Linear(16, 3))
    with pytest.raises(ValueError, match=r"no nn\.Linear or plain convolution"):
        bias_lift(model, None, inputs())
