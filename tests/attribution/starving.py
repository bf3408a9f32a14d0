"""Networks of starved units, and how they are trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import harness


class TopK(nn.Module):
    """A sparse autoencoder: of 24 latents, the three largest are used."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = nn.Linear(8, 24), nn.Linear(24, 8)

    def forward(self, x: Tensor) -> Tensor:
        z = torch.relu(self.encode(x))
        best = torch.topk(z, 3, dim=-1)
        return self.decode(torch.zeros_like(z).scatter(-1, best.indices, best.values))


def close(layer: Any, units: slice = slice(None)) -> None:
    with torch.no_grad():
        layer.bias[units] = -60.0


def train(model: nn.Module, loss_of: Callable[[Tensor, Tensor], Tensor], **options: Any) -> harness.Recorder:
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    draw = torch.Generator().manual_seed(3)
    with harness.Recorder(model, optimizer=optimizer, census_every=10, evidence=True, **options) as recorder:
        for _ in range(20):
            x = torch.randn(32, 8, generator=draw)
            loss = loss_of(model(x), x)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            recorder.step(loss=loss)
    return recorder


def squares(out: Tensor, x: Tensor) -> Tensor:
    return (out - x[:, : out.shape[1]]).square().mean()


def dead_middle() -> nn.Module:
    layers = [nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 12), nn.GELU()]
    model = nn.Sequential(*layers, nn.Linear(12, 8))
    close(model[2])
    return model
