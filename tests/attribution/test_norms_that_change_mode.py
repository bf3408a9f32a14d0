"""A norm that goes to evaluation mode in mid-training is named, though the numbers that it holds stay."""

from __future__ import annotations

import re

import pytest
import torch
from small_trainings import diagnosed_by, inputs
from torch import Tensor, nn

X, Y = inputs()


@pytest.mark.parametrize("at", [6, 51])
def test_a_norm_that_goes_to_evaluation_mode_is_named(at: int) -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(20, momentum=0.001)
    model = nn.Sequential(norm, nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 5))

    def loss(step: int, rows: Tensor) -> Tensor:
        norm.train(step < at)
        return nn.functional.cross_entropy(model(X[rows] + 100), Y[rows])

    found = diagnosed_by(model, loss, steps=100)
    assert found.label == "norm_stats", found
    said = re.search(r"between step (\d+) and step (\d+): the norm 0 went to evaluation mode", found.cause)
    assert said is not None
    assert int(said[1]) < at <= int(said[2])


def test_validation_inside_a_training_changes_no_mode() -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(20)
    model = nn.Sequential(norm, nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 5))

    def loss(step: int, rows: Tensor) -> Tensor:
        if step % 7 == 0:
            model.eval()
            with torch.no_grad():
                model(X[:100])
            model.train()
        if step == 40:
            with torch.no_grad():
                model[1].bias -= 50  # pyright: ignore
        return nn.functional.cross_entropy(model(X[rows]), Y[rows])

    found = diagnosed_by(model, loss, steps=80)
    assert found.label == "surgery", found
    assert "mode" not in found.text


def test_one_that_did_no_harm_is_not_blamed_for_what_came_later() -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(20)
    model = nn.Sequential(norm, nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)

    def loss(step: int, rows: Tensor) -> Tensor:
        norm.train(step < 51)
        optimizer.param_groups[0]["lr"] = 10.0 if step >= 101 else 0.05
        return nn.functional.cross_entropy(model(X[rows]), Y[rows])

    found = diagnosed_by(model, loss, steps=160, optimizer=optimizer)
    assert found.label == "step_size", found
    assert "step 101: the learning rate rose" in found.cause
