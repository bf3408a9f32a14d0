"""Targets that are wrong in one batch, and targets that are wrong from then on."""

from __future__ import annotations

import pytest
import torch
from small_trainings import diagnosed_by, inputs
from torch import Tensor, nn

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
