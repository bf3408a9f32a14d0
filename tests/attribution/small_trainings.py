"""A small classification problem, and the training loop of tests that diagnose it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

import harness


def inputs() -> tuple[Tensor, Tensor]:
    """4,000 points around five centres, and their classes."""
    draw = torch.Generator().manual_seed(0)
    centres, labels = torch.randn(5, 20, generator=draw), torch.randint(0, 5, (4000,), generator=draw)
    return centres[labels] + torch.randn(4000, 20, generator=draw), labels


def plain() -> nn.Sequential:
    return nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 5))


def stepped(recorder: harness.Recorder, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step of a recorded training."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    recorder.step(loss=loss)


def diagnosed_by(
    model: nn.Module,
    loss_of: Callable[[int, Tensor], Tensor],
    *,
    steps: int = 60,
    lr: float = 0.05,
    optimizer: torch.optim.Optimizer | None = None,
    probe: Tensor | None = None,
) -> harness.Diagnosis:
    """The diagnosis after a training; `loss_of` gets the step, from 1 on, and which points come."""
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=lr)
    recorder = harness.Recorder(model, optimizer=optimizer, census_every=10, evidence=True, probe=probe)
    with recorder:
        for step in range(1, steps + 1):
            stepped(recorder, optimizer, loss_of(step, torch.randint(0, 4000, (64,))))
    return recorder.diagnose()
