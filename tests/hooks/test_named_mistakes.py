"""Mistakes are named where they are made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import harness
from harness.remedies import redo


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


@pytest.mark.parametrize("watched", [False, True])
def test_a_loss_of_several_values_is_refused_at_once(watched: bool) -> None:
    torch.manual_seed(0)
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    options: dict[str, Any] = {"optimizer": optimizer, "evidence": True, "census_every": None}
    with harness.watch(model, **options) if watched else harness.Recorder(model, **options) as recorder:
        for _ in range(3):
            losses = model(torch.randn(8, 4)).square().mean(1)
            losses.mean().backward()
            optimizer.step()
            with pytest.raises(ValueError, match=r"one number for the evidence, but got shape \(8,\)"):
                recorder.step(loss=losses)
            recorder.step(loss=losses.mean().reshape(1))
        recorder.census()
    assert recorder.steps == 3
    assert recorder.evidence().steps["loss"].notna().all()
    assert recorder.diagnose().label == "none"


def test_without_evidence_a_run_keeps_the_mean(tmp_path: Path) -> None:
    model = net()
    with harness.Recorder(model, output=tmp_path, tensorboard=False) as recorder:
        model(torch.randn(8, 4)).sum().backward()
        recorder.step(loss=torch.tensor([1.0, 3.0]))
    (run,) = harness.open_runs(tmp_path)
    assert run.steps["loss"].tolist() == [2.0]


def test_the_loss_of_a_scan_says_how_it_is_called() -> None:
    batch = torch.randn(8, 4), torch.zeros(8, dtype=torch.long)
    with pytest.raises(ValueError, match=r"loss: it raised when it was called as loss\(output, batch\)"):
        harness.scan(net(), batch, loss=nn.CrossEntropyLoss())
    criterion = nn.CrossEntropyLoss()
    report = harness.scan(net(), batch, loss=lambda output, batch: criterion(output, batch[1]))
    assert report.units.grad_rms.notna().all()


def test_other_arguments() -> None:
    report = harness.scan(net(), torch.randn(8, 4))
    with pytest.raises(TypeError, match=r"dead: expected a share in \[0, 1\], but got '0.2'"):
        report.raise_if("0.2")  # pyright: ignore
    with pytest.raises(TypeError, match="history: expected the table of a recorder's history"):
        harness.lifetimes(5)  # pyright: ignore


def test_a_model_without_a_forward_is_called_that() -> None:
    """An agent with methods alone can be watched, but not be called on a batch."""

    class Agent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk, self.head = nn.Sequential(nn.Linear(4, 8), nn.ReLU()), nn.Linear(8, 2)

        def act(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.trunk(x))

    agent = Agent()
    optimizer = torch.optim.SGD(agent.parameters(), lr=0.1)
    with pytest.raises(TypeError, match=r"Agent has no forward\(\).*whose forward calls the method"):
        harness.scan(agent, torch.randn(5, 4))
    with pytest.raises(TypeError, match=r"Agent has no forward\(\)"):
        redo(agent, optimizer, torch.randn(5, 4))
