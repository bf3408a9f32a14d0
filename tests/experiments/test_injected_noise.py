"""Noise that is added to a gradient has the variance that a smaller batch would have."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from experiments.claims.batch_noise import noised


def test_the_mean_is_the_gradient_and_the_variance_that_of_a_part() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 4))
    first = model[0]
    assert isinstance(first, nn.Linear)
    nn.init.constant_(first.bias.data[:1], -100.0)  # a dead unit
    x, y = torch.randn(64, 3), torch.randint(4, (64,))
    draw = torch.Generator().manual_seed(1)
    drawn = torch.stack([noised(model, x, y, 8, draw)["0.weight"] for _ in range(4000)])
    weight = first.weight

    def gradient(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(functional.cross_entropy(model(x), y), weight)[0]

    of_parts = torch.stack([gradient(a, b) for a, b in zip(x.split(8), y.split(8), strict=True)])
    spread = of_parts.std(0)
    torch.testing.assert_close(of_parts.mean(0), gradient(x, y))
    assert ((drawn.mean(0) - gradient(x, y)).abs() <= 5 * spread / 4000**0.5 + 1e-7).all()
    torch.testing.assert_close(drawn.std(0), spread * (7 / 8) ** 0.5, rtol=0.06, atol=1e-7)
    assert not drawn[:, 0].any(), "a dead unit has no noise"
