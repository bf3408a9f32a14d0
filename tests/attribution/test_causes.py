"""Which cause is given, of which units, and that the sentences do not contradict it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import harness


def trained(model: nn.Module, *, optimizer: Any = torch.optim.SGD, lr: float = 0.01, **options: Any) -> Any:
    draw = torch.Generator().manual_seed(1)
    steps = optimizer([p for p in model.parameters() if p.requires_grad], lr=lr)
    rows, idle = options.pop("rows", 32), options.pop("idle", 0)
    with harness.Recorder(model, optimizer=steps, census_every=10, evidence=True, **options) as recorder:
        for _ in range(idle):  # an agent acts before it learns
            with torch.no_grad():
                model(torch.randn(1, 12, generator=draw))
            recorder.step()
        for _ in range(20):
            x = torch.randn(rows, 12, generator=draw)
            loss = (model(x)[:, 0] - (x[:, 0] * x[:, 1]).abs() - 1).square().mean()
            steps.zero_grad()
            loss.backward()
            steps.step()
            recorder.step(loss=loss)
    return recorder


def transferred(offset: float, *, frozen: bool = False) -> nn.Module:
    """A large frozen backbone and a small head."""
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Linear(12, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU())
    backbone.requires_grad_(False)
    hidden = nn.Linear(256, 16)
    with torch.no_grad():
        hidden.bias.add_(offset)
    hidden.requires_grad_(not frozen)
    return nn.Sequential(backbone, nn.Sequential(hidden, nn.ReLU(), nn.Linear(16, 1)))


def test_a_dead_layer_needs_a_cause_however_small_its_share() -> None:
    found = trained(transferred(-30.0)).diagnose()
    assert found.label == "bias_init"
    assert "Cause of the layers that are mostly dead (16 of 16 at “1.1”): bias_init" in found.text
    assert "so few" not in found.text
    assert trained(transferred(0.0)).diagnose().label == "none"
    assert trained(transferred(-30.0, frozen=True)).diagnose().label == "none"


@pytest.mark.parametrize("idle", [0, 60])
@pytest.mark.parametrize("optimizer", [torch.optim.RMSprop, torch.optim.SGD])
def test_one_long_step_is_enough(optimizer: Any, idle: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 1))
    lr = {torch.optim.SGD: 0.6}.get(optimizer, 0.1)
    found = trained(model, optimizer=optimizer, lr=lr, idle=idle).diagnose()
    assert found.label == "step_size"
    assert "the longest" in found.text


def test_a_unit_that_a_norm_closes_in_evaluation_was_not_born_dead_by_chance() -> None:
    torch.manual_seed(0)
    layers = [nn.Linear(12, 32), nn.BatchNorm1d(32, momentum=1e-3), nn.ReLU(), nn.Linear(32, 1)]
    with torch.no_grad():
        layers[0].bias -= 40.0  # type: ignore[operator]
    probe = torch.randn(200, 12, generator=torch.Generator().manual_seed(4))
    found = trained(nn.Sequential(*layers), lr=1e-3, probe=probe).diagnose()
    assert found.label == "norm_stats"
    assert "32 by the running statistics of a norm that evaluation uses, and open in training" in found.text
    assert "by chance" not in found.text


@pytest.mark.parametrize("seed", [0, 4])
def test_a_cause_that_is_chance_is_said_to_be_so(seed: int) -> None:
    """PyTorch's own initialisation, which is below He's scale, closes the only unit of the last layer."""
    torch.manual_seed(seed)
    layers = [nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU()]
    found = trained(nn.Sequential(*layers, nn.Linear(24, 1), nn.ReLU())).diagnose()
    assert found.label == "weight_init"
    assert "by chance, as the weights of any initialisation fall" in found.text
    assert (
        "), by chance: weights and biases are as usual ones are drawn; the weights are at 0.4" in found.text
    )


class Coded(nn.Module):
    """A code of one row beside inputs of many."""

    def __init__(self) -> None:
        super().__init__()
        self.make, self.code = nn.Linear(4, 32), nn.Parameter(torch.randn(4))
        self.layer, self.out = nn.Linear(12, 20), nn.Linear(20, 1)
        self.join = nn.Linear(32, 20)
        with torch.no_grad():
            self.layer.bias[:6] -= 40.0

    def forward(self, x: Tensor) -> Tensor:
        made = self.join(F.relu(self.make(self.code[None])))
        return self.out(F.relu(self.layer(x)) + made)


def test_a_site_of_one_row_withholds_no_others_verdict() -> None:
    torch.manual_seed(0)
    found = trained(Coded(), lr=1e-3).diagnose()
    assert found.label == "bias_init"
    assert "n = 10 to 320 on the training stream" in found.text
    assert "No cause is given for " in found.text
    assert "dead units (n = 10): n is too small" in found.text
