"""Inputs that need gradients are new leaves of the graph at every step: no call is lost by them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import harness

STEPS, ROWS = 24, 3


class Net(nn.Module):
    def __init__(self, layer: Callable[[], nn.Module], spelling: str) -> None:
        super().__init__()
        self.one, self.two, self.act, self.other = layer(), layer(), nn.ReLU(), nn.ReLU()
        self.spelling = spelling

    def forward(self, x: Tensor) -> Tensor:
        first, second = (F.relu, F.relu) if self.spelling == "function" else (self.act, self.other)
        return second(self.two(first(self.one(x))))


@pytest.mark.parametrize("when", ["always", "frozen", "in turn", "at times"])
@pytest.mark.parametrize("spelling", ["function", "module"])
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda: nn.Linear(6, 6), (6,)),
        (lambda: nn.Conv1d(4, 4, 3, padding=1), (4, 5)),
        (lambda: nn.Sequential(nn.Conv1d(4, 4, 1), nn.BatchNorm1d(4)), (4, 5)),
    ],
    ids=["linear", "convolution", "norm"],
)
@pytest.mark.filterwarnings("ignore:.*it was never called")
def test_no_call_is_lost(
    layer: Callable[[], nn.Module], shape: tuple[int, ...], spelling: str, when: str
) -> None:
    torch.manual_seed(0)
    model = Net(layer, spelling)
    with harness.Recorder(model, census_every=None) as recorder:
        for step in range(STEPS):
            x = torch.randn(ROWS, *shape)
            if when == "always" or (when == "in turn" and step % 2) or (when == "at times" and step % 7 == 6):
                x.requires_grad_()
            frozen = when == "frozen" or (when == "in turn" and step % 4 == 3)
            model.requires_grad_(not frozen)
            x.requires_grad_(x.requires_grad or frozen)
            model(2 * x if step % 3 else x).sum().backward()
            recorder.step()
        census = recorder.census()
    positions = shape[1] if len(shape) > 1 else 1
    seen = census[census["n"] > 0]
    assert seen.groupby("site")["n"].first().tolist() == [STEPS * ROWS * positions] * 2
    assert not seen["grad_rms"].isna().any()
