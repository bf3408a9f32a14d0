"""Update clipping: ordinary steps are untouched, an outlier is shortened, whatever the optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from harness.remedies import clip_updates

OPTIMIZERS: dict[str, Callable[[Any], Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, 0.05),
    "momentum": lambda p: torch.optim.SGD(p, 0.02, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, 0.003),
}


def trained(make: Callable[[Any], Optimizer], *, clipped: bool, spike: float = 1.0, steps: int = 40) -> Any:
    """The parameters after every step; at step 30 the learning rate is `spike` times as high."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    x, y = torch.randn(64, 8), torch.randint(0, 2, (64,))
    optimizer = make(model.parameters())
    hooks = clip_updates(optimizer) if clipped else None
    rate, states = optimizer.param_groups[0]["lr"], [flat(model)]
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (spike if step == 30 else 1.0)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        states.append(flat(model))
    if hooks:
        hooks.remove()
    return torch.stack(states), optimizer, model


def flat(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_ordinary_steps_keep_their_bits(name: str) -> None:
    plain, *_ = trained(OPTIMIZERS[name], clipped=False)
    clipped, *_ = trained(OPTIMIZERS[name], clipped=True)
    assert torch.equal(plain, clipped)


@pytest.mark.parametrize("spike", [100.0, float("inf")])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_spike_moves_no_farther_than_three_ordinary_steps(name: str, spike: float) -> None:
    plain, *_ = trained(OPTIMIZERS[name], clipped=False, spike=spike)
    clipped, *_ = trained(OPTIMIZERS[name], clipped=True, spike=spike)
    assert torch.equal(plain[:31], clipped[:31])
    lengths = clipped.diff(dim=0).norm(dim=1)
    assert lengths[30] <= 3.001 * lengths[:30].median()
    assert bool(clipped.isfinite().all())
    if spike < 1e9:
        whole = plain[31] - plain[30]
        cosine = nn.functional.cosine_similarity(whole, clipped[31] - clipped[30], dim=0)
        assert cosine > 0.999  # shorter, in the same direction


def test_removed_hooks_leave_nothing_behind() -> None:
    _, optimizer, model = trained(OPTIMIZERS["sgd"], clipped=True)
    before = flat(model)
    optimizer.param_groups[0]["lr"] = 1e6
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    torch.testing.assert_close(flat(model), before - 1e6)


def test_numbers_out_of_range_are_refused() -> None:
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), 0.1)
    with pytest.raises(
        ValueError, match=r"times of at least 1 and a window of at least 10, but got 0\.5 and 5"
    ):
        clip_updates(optimizer, times=0.5, window=5)
