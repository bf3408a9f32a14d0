"""A model that keeps its last output is freed after it was watched: hooks on the graph do not hold it."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import harness


class Keeping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
        self.last: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.last = out = self.net(x)
        return out


def watched(model: nn.Module, forwards: int) -> None:
    with harness.Recorder(model, census_every=5) as recorder:
        for _ in range(forwards):
            model(torch.randn(7, 8)).square().mean().backward()
            recorder.step()


def masked(model: nn.Module) -> None:
    with harness.Recorder(model, census_every=5) as recorder:
        for _ in range(12):
            recorder.mask(torch.ones(7))
            model(torch.randn(7, 8)).square().mean().backward()
            recorder.step()


def scaled(model: nn.Module) -> None:
    scaler = torch.amp.GradScaler("cpu")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with harness.Recorder(model, optimizer=optimizer, scaler=scaler, census_every=5) as recorder:
        for _ in range(12):
            scaler.scale(model(torch.randn(7, 8)).square().mean()).backward()
            scaler.step(optimizer)
            scaler.update()
            recorder.step()


def scanned(model: nn.Module) -> None:
    harness.scan(model, torch.randn(7, 8), loss=lambda output, batch: output.square().mean())


def explained(model: nn.Module) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with harness.Recorder(model, optimizer=optimizer, evidence=True, census_every=5) as recorder:
        for _ in range(12):
            model(torch.randn(7, 8)).square().mean().backward()
            optimizer.step()
            recorder.step()


WAYS: dict[str, Callable[[nn.Module], None]] = {
    "traced": lambda model: watched(model, 3),
    "fast": lambda model: watched(model, 12),
    "masked": masked,
    "scaled": scaled,
    "scanned": scanned,
    "explained": explained,
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_it_is_freed(way: Callable[[nn.Module], None]) -> None:
    def run() -> weakref.ref[nn.Module]:
        model = Keeping()
        way(model)
        return weakref.ref(model)

    reference = run()
    gc.collect()
    assert reference() is None
