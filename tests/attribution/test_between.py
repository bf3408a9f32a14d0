"""What lies between a layer and its activation: the layer is blamed whatever is done to its output."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import harness

# Of reparametrised layers and of layers that are frozen in part.
pytestmark = pytest.mark.filterwarnings("ignore:.*grad_norm is not known")

Between = Callable[[Tensor], Tensor]


class Block(nn.Module):
    """A convolution, something, and a ReLU; the larger its output, the larger the loss."""

    def __init__(self, between: Between, *, reparametrised: bool = False) -> None:
        super().__init__()
        layer = nn.Conv1d(3, 12, 3, padding=2)
        self.layer = parametrizations.weight_norm(layer) if reparametrised else layer
        self.relu, self.between = nn.ReLU(), between

    def forward(self, x: Tensor) -> Tensor:
        return 5.0 + self.relu(self.between(self.layer(x))).mean(2)


BETWEEN: dict[str, Between] = {
    "slice": lambda x: x[:, :, :-2].contiguous(),
    "step": lambda x: x[:, :, ::2],
    "pad": lambda x: F.pad(x, (1, 1), value=-1.0),
    "roll": lambda x: x.roll(1, 2),
    "turned": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
    "scale and shift": lambda x: 2 * x - 0.1,
    "dropout": lambda x: F.dropout(x, 0.1),
    "average": lambda x: F.avg_pool1d(x, 2),
    "noise": lambda x: x + 1e-3 * torch.randn_like(x),
}


def trained(model: nn.Module, lr: float, steps: int = 20) -> harness.Recorder:
    draw = torch.Generator().manual_seed(1)
    optimizer = torch.optim.RMSprop([p for p in model.parameters() if p.requires_grad], lr=lr)
    with harness.Recorder(model, optimizer=optimizer, census_every=10, evidence=True) as recorder:
        for _ in range(steps):
            x = torch.randn(16, 3, 10, generator=draw).cumsum(2)
            loss = (model(x).mean(1) - x.abs().mean((1, 2))).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            recorder.step(loss=loss)
    return recorder


@pytest.mark.parametrize("reparametrised", [False, True])
@pytest.mark.parametrize("name", BETWEEN)
def test_the_first_layer_is_blamed_for_its_own_fall(name: str, reparametrised: bool) -> None:
    torch.manual_seed(0)
    model = Block(BETWEEN[name], reparametrised=reparametrised)
    recorder = trained(model, 0.3)
    assert recorder.census()["state"].eq("dead").any()
    units = recorder.evidence().units
    assert units["rate_now"].notna().all()
    assert units["upstream"].abs().max() < 1e-9
    factors = ["weights", "decay", "bias", "norm", "upstream", "data"]
    change = units["rate_now"] - units["rate_then"]
    assert (units[factors].sum(axis=1) - change).abs().max() < 1e-12


class Low(nn.Module):
    """A layer to which something is added."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.layer, self.skip = how, nn.Linear(12, 24), nn.Linear(12, 24, bias=False)
        self.a, self.b = nn.Parameter(torch.randn(2, 12) * 0.1), nn.Parameter(torch.zeros(24, 2))
        with torch.no_grad():
            self.layer.bias[:8] -= 30.0
        self.layer.requires_grad_(how != "lora")

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        if self.how == "noise":
            return y + 0.01 * torch.randn_like(y)
        if self.how == "sum":
            return y + self.skip(x)
        if self.how == "constant":
            return y + 0.1
        return y + x @ self.a.T @ self.b.T


@pytest.mark.parametrize("how", ["lora", "lora, trained", "noise", "sum", "constant"])
def test_a_low_bias_is_named_where_something_is_added_to_the_output(how: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(30, 12), nn.Tanh(), Low(how), nn.ReLU(), nn.Linear(24, 1))
    found = trained(model, 1e-3).diagnose()
    assert found.label == "bias_init"
    planted = found.units.query("site == '4' and unit < 8")
    assert len(planted) == 8
    assert planted["cause"].eq("bias_init").all()
    assert "8 by their bias" in found.text


class Hyper(nn.Module):
    """Its weights are made by another network: no parameter is theirs; with `turned`, no bias either."""

    def __init__(self, *, turned: bool) -> None:
        super().__init__()
        self.turned = turned
        self.make = nn.Sequential(nn.Linear(4, 32), nn.Tanh())
        self.weight, self.bias = nn.Linear(32, 400), nn.Linear(32, 20)
        self.code = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        made = self.make(self.code)
        weight, bias = self.weight(made).view(20, 20), self.bias(made)
        bias = bias.flip(0) if self.turned else bias
        return 5.0 + F.relu(F.linear(x.flatten(1)[:, :20], weight, bias))


@pytest.mark.filterwarnings("ignore:.*is a guess")
def test_where_nothing_is_known_of_the_makers_no_layer_below_is_blamed() -> None:
    torch.manual_seed(0)
    model = Hyper(turned=True)
    model.requires_grad_(False)
    model.bias.bias.requires_grad_()
    recorder = trained(model, 0.3)
    assert recorder.sites[-1].single_producer is None
    found = recorder.diagnose()
    units = found.units[found.units["site"] == ":relu"]
    assert len(units)
    assert units["cause"].isin(["unknown", "data"]).all()
    assert "layers below" not in found.text


@pytest.mark.filterwarnings("ignore:.*is a guess")
def test_of_makers_that_are_known_in_part_these_are_blamed_for_what_they_did() -> None:
    torch.manual_seed(0)
    model = Hyper(turned=False)
    model.requires_grad_(False)
    model.bias.bias.requires_grad_()
    found = trained(model, 0.3).diagnose()
    units = found.units[found.units["site"] == ":relu"]
    assert len(units)
    assert units["cause"].isin(["bias", "data"]).all()
    assert "layers below" not in found.text
