"""Layers that are frozen or released in mid-training: the first forward after it is counted, too."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import harness


def frozen(model: nn.Module, step: int) -> None:
    model.get_submodule("trunk").requires_grad_(step < 20)


def released(model: nn.Module, step: int) -> None:
    model.get_submodule("trunk").requires_grad_(step >= 20)


def taken_in_turns(model: nn.Module, step: int) -> None:
    model.get_submodule("trunk").requires_grad_(step % 3 == 0)


def released_one_by_one(model: nn.Module, step: int) -> None:
    for number, parameter in enumerate(reversed(list(model.parameters()))):
        parameter.requires_grad_(step >= 4 * number)


def biases_frozen(model: nn.Module, step: int) -> None:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(step < 20 or not name.endswith("bias"))


CHANGES = [frozen, released, taken_in_turns, released_one_by_one, biases_frozen]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_no_forward_is_lost(change: Callable[[nn.Module, int], None]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential()
    trunk = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU())
    model.add_module("trunk", trunk)
    model.add_module("head", nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 1)))
    seen = {"trunk.1": torch.zeros(8), "trunk.3": torch.zeros(8)}

    def look(site: str, z: torch.Tensor) -> None:
        seen[site] += (z > 0).sum(0)

    trunk[0].register_forward_hook(lambda *call: look("trunk.1", call[2]))
    trunk[2].register_forward_hook(lambda *call: look("trunk.3", call[2]))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with harness.Recorder(model, optimizer=optimizer, census_every=None) as recorder:
        for step in range(40):
            change(model, step)
            optimizer.zero_grad()
            model(torch.randn(4, 5)).sum().backward()
            optimizer.step()
            recorder.step()
        census = recorder.census()
    assert set(census.n) == {160}
    assert census.groupby("site").ngroups == 3
    for site, active in seen.items():
        assert census.active[census.site == site].tolist() == active.tolist()


@pytest.mark.parametrize("change", CHANGES[:2], ids=lambda change: change.__name__)
def test_no_gradient_is_lost(change: Callable[[nn.Module, int], None]) -> None:
    """Behind a norm, no leaf right behind the activation shows whether a pass trains."""
    torch.manual_seed(0)
    model = nn.Sequential()
    model.add_module("trunk", nn.Linear(5, 8))
    model.add_module("head", nn.Sequential(nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1)))
    squares: list[torch.Tensor] = []

    def look(module: nn.Module, args: tuple[torch.Tensor]) -> None:
        args[0].register_hook(lambda g: squares.append(g.double().square().sum(0)))

    model.get_submodule("head.1").register_forward_pre_hook(look)
    with harness.Recorder(model) as recorder:
        for step in range(40):
            change(model, step)
            model.zero_grad()
            model(torch.randn(4, 5)).sum().backward()
            recorder.step()
        census = recorder.census()
    rms = (torch.stack(squares).sum(0) / 160).sqrt()
    assert census.grad_rms.tolist() == pytest.approx(rms.tolist(), rel=1e-5)
