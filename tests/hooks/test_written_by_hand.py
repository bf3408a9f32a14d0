"""Thresholds written by hand are named in a row; what only looks like one is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import harness


def kept(z: Tensor) -> Tensor:
    z = z.clone()
    z[z < 0] = 0
    return z


class Own(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        ctx.save_for_backward(z)
        return z * (z > 0)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0] * (ctx.saved_tensors[0] > 0)


class Net(nn.Module):
    def __init__(self, call: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.fc, self.norm, self.head = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.call(self.norm(self.fc(x))))


def sites(call: Callable[[Tensor], Tensor]) -> list[harness.Site]:
    model = Net(call)
    with harness.Recorder(model, census_every=None) as recorder:
        for _ in range(3):
            model(torch.randn(5, 4)).sum().backward()
            recorder.step()
    return list(recorder.sites)


BY_HAND: dict[str, Callable[[Tensor], Tensor]] = {
    "mul": lambda z: z * (z > 0),
    "float mask": lambda z: (z >= 0).float() * z,
    "reversed": lambda z: z * (0 < z),  # noqa: SIM300
    "where": lambda z: torch.where(z > 0, z, 0.0),
    "zeros first": lambda z: torch.where(z < 0, torch.zeros_like(z), z),
    "elu": lambda z: torch.where(z > 0, z, z.exp() - 1),
    "masked_fill": lambda z: z.masked_fill(z < 0, 0),
    "in place": kept,
    "own function": Own.apply,
    "threshold per unit": lambda z: z * (z > torch.full((8,), 0.2)),
    "where, per unit": lambda z: torch.where(z > torch.full((8,), 0.2), z, 0.0),
    "negated": lambda z: z * ~(z < 0),
    "step": lambda z: z * torch.heaviside(z.detach(), torch.zeros(())),
    "copy": lambda z: z.clone().mul_(z > 0),
    "leaky": lambda z: torch.maximum(z, 0.1 * z),
}


@pytest.mark.filterwarnings("ignore:.*is unobserved")
def test_a_threshold_behind_a_relu_is_named_beside_it() -> None:
    relu, jump = sites(lambda z: F.relu(z) * (z > torch.full((8,), 0.2)))
    assert (relu.activation, jump.activation) == ("relu", "threshold")


@pytest.mark.filterwarnings("ignore:.*is unobserved")
@pytest.mark.parametrize("name", BY_HAND)
def test_a_threshold_by_hand_is_named(name: str) -> None:
    (site,) = sites(BY_HAND[name])
    assert site.activation == "threshold"
    assert "written by hand" in site.reason


def test_other_masks_are_no_thresholds() -> None:
    keep = torch.rand(5, 8) > 0.5
    (site,) = sites(lambda z: F.relu(z) * keep * (z.detach() > 9))
    assert site.reason == ""
    (declared,) = sites(harness.declare_activation(lambda z: z * (z > 0), threshold=0))
    assert declared.reason == ""
