"""What to try next follows from the evidence, not from the label alone."""

from __future__ import annotations

import pytest
import torch
from small_trainings import diagnosed_by, inputs, plain
from torch import Tensor, nn

import harness

X, Y = inputs()
CE = nn.functional.cross_entropy


def diagnosed(model: nn.Module, *, lr: float = 0.05, x: Tensor = X, **options: float) -> harness.Diagnosis:
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, **options)  # type: ignore[arg-type]
    optimizer.param_groups[0]["lr"] = lr  # its own check refuses a negative one
    return diagnosed_by(model, lambda _, rows: CE(model(x[rows]), Y[rows]), optimizer=optimizer)


@pytest.mark.parametrize(
    ("lr", "momentum", "expected"),
    [
        (8.0, 0.0, "Lower the learning rate, to 0.8 at first"),
        (0.5, 0.99, "Lower the momentum: at 0.99 a gradient takes the parameters 100 times as far"),
        (-0.5, 0.0, "Keep the learning rate above 0"),
    ],
)
def test_long_steps_have_several_reasons(lr: float, momentum: float, expected: str) -> None:
    torch.manual_seed(0)
    found = diagnosed(plain(), lr=lr, momentum=momentum)
    assert found.label == "step_size"
    assert found.next_step.startswith(expected)
    assert str(found) == f"{found.text}\nNext: {found.next_step}"


def test_a_schedule_is_named_with_its_step() -> None:
    torch.manual_seed(0)
    model = plain()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)

    def loss(step: int, rows: Tensor) -> Tensor:
        optimizer.param_groups[0]["lr"] = 10.0 if step >= 40 else 0.05
        return CE(model(X[rows]), Y[rows])

    found = diagnosed_by(model, loss, optimizer=optimizer)
    assert found.label == "step_size"
    assert found.next_step == "Let the learning rate, or the momentum, rise less from step 40 on."


def test_inputs_that_are_all_zero() -> None:
    torch.manual_seed(0)
    found = diagnosed(plain(), x=torch.zeros_like(X))
    assert found.label == "input_offset"
    assert found.next_step == "Find out why the inputs are all 0."


def test_first_outputs_that_are_large() -> None:
    torch.manual_seed(0)
    model = plain()
    with torch.no_grad():
        model[-1].weight.mul_(500)  # type: ignore[union-attr]
    found = diagnosed(model)
    assert found.label == "weight_init"
    assert found.next_step == "Draw the weights of the output layer smaller."


def test_outputs_behind_a_relu() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 8), nn.ReLU())
    found = diagnosed_by(model, lambda _, rows: (model(X[rows]) + 2).square().mean(), steps=200)
    assert found.label == "constant"
    assert found.next_step == "Leave out the last ReLU."


def test_a_norm_that_leaves_nothing() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 40), nn.GroupNorm(40, 40), nn.ReLU(), nn.Linear(40, 5))
    with torch.no_grad():
        model[1].bias.sub_(0.1)  # type: ignore[operator]
    found = diagnosed(model)
    assert found.label == "norm_stats"
    assert found.next_step.startswith("Leave out the norm that leaves nothing")


def test_a_healthy_training_needs_no_step() -> None:
    torch.manual_seed(0)
    found = diagnosed(plain())
    assert (found.label, found.next_step, str(found)) == ("none", "", found.text)
