"""Targets that are wrong in one batch, and targets that are wrong from then on."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from small_trainings import diagnosed_by, inputs
from torch import Tensor, nn

import harness

X, _ = inputs()
T = (X[:, :4] @ torch.randn(4, 2, generator=torch.Generator().manual_seed(1))).tanh()


def regression() -> nn.Sequential:
    return nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2))


@pytest.mark.parametrize("factor", [-20.0, 100.0])  # the step leaves the outputs small, or throws them off
@pytest.mark.parametrize(("last", "label"), [(150, "bad_batch"), (400, "labels")])
def test_wrong_targets_of_one_batch_are_a_bad_batch(factor: float, last: int, label: str) -> None:
    torch.manual_seed(0)
    model = regression()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)

    def loss(step: int, rows: Tensor) -> Tensor:
        targets = T[rows] * (factor if 150 <= step <= last else 1)
        return nn.functional.mse_loss(model(X[rows]), targets)

    found = diagnosed_by(model, loss, optimizer=optimizer, steps=400)
    assert found.label == label
    assert "step 150: the loss rose to" in found.text


def without_loss(
    model: nn.Module, targets_of: Callable[[int, Tensor], Tensor], steps: int
) -> harness.Diagnosis:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    recorder = harness.Recorder(model, optimizer=optimizer, census_every=5, evidence=True, probe=X[:300])
    with recorder:
        for step in range(1, steps + 1):
            rows = torch.randint(0, 4000, (64,))
            optimizer.zero_grad()
            nn.functional.mse_loss(model(X[rows]), targets_of(step, rows)).backward()
            optimizer.step()
            recorder.step()
    return recorder.diagnose()


@pytest.mark.parametrize("factor", [100.0, 1e4])
def test_targets_that_change_are_seen_at_the_outputs_though_no_loss_is_given(factor: float) -> None:
    torch.manual_seed(0)
    found = without_loss(regression(), lambda step, rows: T[rows] * (factor if step >= 100 else 1), 140)
    assert found.label == "labels", found
    assert "step 100: the gradient rose to" in found.cause
    assert "(no loss was given)" in found.cause
