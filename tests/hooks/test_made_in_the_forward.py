"""Modules that a model makes in its own forward: each call is counted once, under the module's name."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import harness

STEPS, N = 12, 16


class Wrapper(nn.Module):
    """A projector is made when the width of the features is known."""

    def __init__(self, make: Any, *, own: bool = False) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 10))
        self.projector: Any = None
        self._make, self._own = make, own

    def forward(self, x: Tensor) -> Tensor:
        features = self.net(x)
        features = F.relu(features) if self._own else features
        if self.projector is None:
            self.projector = self._make()
        return self.projector(features)


class Target(nn.Module):
    """The target network is a copy of the trained one."""

    def __init__(self) -> None:
        super().__init__()
        self.online, self.predictor = nn.Sequential(nn.Linear(8, 12), nn.ReLU()), nn.Linear(12, 12)
        self.target: nn.Module | None = None

    def forward(self, x: Tensor) -> Tensor:
        predicted = self.predictor(self.online(x))
        with torch.no_grad():
            if self.target is None:
                self.target = copy.deepcopy(self.online).requires_grad_(False)
            wanted = self.target(x)
        return F.mse_loss(predicted, wanted)


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.last = nn.Linear(10, 7), nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.inner(x)))


def modules() -> nn.Module:
    return nn.Sequential(nn.Linear(10, 7), nn.BatchNorm1d(7), nn.ReLU(inplace=True), nn.Linear(7, 3))


def watched(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Site → units and n after some steps."""
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    with harness.Recorder(model, optimizer=optimizer, census_every=None) as recorder:
        for _ in range(STEPS):
            optimizer.zero_grad()
            model(torch.randn(N, 8)).square().mean().backward()
            optimizer.step()
            recorder.step()
        census = recorder.census()
    sites = census.groupby("site", sort=False)
    return {str(site): (len(rows), int(rows["n"].iloc[0])) for site, rows in sites}


@pytest.mark.parametrize("own", [False, True])
def test_a_part_of_modules_is_counted_from_its_first_call_on(own: bool) -> None:
    torch.manual_seed(0)
    expected = {"net.1": (12, N * STEPS), "projector.2": (7, N * STEPS)} | (
        {":relu": (10, N * STEPS)} if own else {}
    )
    assert watched(Wrapper(modules, own=own)) == expected


def test_a_part_that_calls_functions_is_counted_from_its_second_call_on() -> None:
    torch.manual_seed(0)
    found = watched(Wrapper(Functional))
    assert found == {"net.1": (12, N * STEPS), "projector:relu": (7, N * (STEPS - 1))}


def test_an_activation_alone_is_counted_from_its_second_call_on() -> None:
    torch.manual_seed(0)
    assert watched(Wrapper(nn.ReLU)) == {"net.1": (12, N * STEPS), "projector": (10, N * (STEPS - 1))}


def test_a_copy_of_watched_modules_is_counted_like_them_and_keeps_no_hooks() -> None:
    torch.manual_seed(0)
    model = Target()
    assert watched(model) == {"online.1": (12, N * STEPS), "target.1": (12, N * STEPS)}
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_copy_loses_inert_hooks_when_it_is_called() -> None:
    model = nn.Sequential(nn.Linear(8, 12), nn.ReLU())
    with harness.Recorder(model, census_every=None):
        model(torch.randn(4, 8))
        made = copy.deepcopy(model)
        made(torch.randn(4, 8))
    made(torch.randn(4, 8))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in made.modules())
