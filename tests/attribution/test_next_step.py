"""What to try next follows from the evidence, not from the label alone."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from small_trainings import diagnosed_by, inputs, plain
from torch import Tensor, nn
from torch.nn.utils import prune

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


def test_units_that_a_mask_closes_are_not_drawn_anew() -> None:
    torch.manual_seed(0)
    model = plain()
    prune.ln_structured(model[2], "weight", amount=0.6, n=2, dim=0)
    with torch.no_grad():
        model[2].get_parameter("bias").sub_(0.3)
    found = diagnosed(model)
    assert found.label == "weight_init"
    assert found.next_step.startswith("Find what makes all incoming weights of these units 0")


def test_an_input_that_is_not_a_number_is_not_clipped() -> None:
    torch.manual_seed(0)
    model, x = plain(), X.clone()
    found = diagnosed_by(
        model, lambda step, rows: CE(model(x[rows] * (torch.nan if step == 40 else 1)), Y[rows])
    )
    assert found.label == "bad_batch"
    assert "clip" not in found.next_step
    assert "not finite" in found.next_step


def test_an_optimizer_that_climbs() -> None:
    torch.manual_seed(0)
    found = diagnosed(plain(), lr=0.5, maximize=True)
    assert found.label == "step_size"
    assert found.next_step.startswith("Leave out maximize=True")


def test_narrow_networks_are_to_be_wider() -> None:
    torch.manual_seed(0)
    sizes = [20, *[3] * 12]
    hidden = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())]
    found = diagnosed(nn.Sequential(*hidden, nn.Linear(3, 5)))
    assert found.label == "weight_init"
    assert found.next_step.startswith("Make the layers wider")


class Recurrent(nn.Module):
    """Ten steps of a cell whose recurrent weights are too large."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.again, self.act, self.out = (
            nn.Linear(2, 32),
            nn.Linear(32, 32),
            nn.ReLU(),
            nn.Linear(32, 5),
        )
        nn.init.normal_(self.again.weight, 0, 0.5)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), 32)
        for part in x.split(2, 1):
            h = self.act(self.inside(part) + self.again(h))
        return self.out(h)


def test_hidden_weights_that_are_too_large_are_not_those_of_the_output() -> None:
    torch.manual_seed(0)
    found = diagnosed(Recurrent())
    assert found.label == "weight_init", found
    assert found.next_step.startswith("Draw the hidden weights smaller")


def test_small_weights_beside_usual_biases_are_not_the_inputs_fault() -> None:
    torch.manual_seed(0)
    model = plain()
    for layer in (model[0], model[2]):
        nn.init.uniform_(layer.get_parameter("weight"), -0.01, 0.01)
    found = diagnosed(model, x=X.abs())
    assert found.label == "weight_init", found
    assert "so that usual biases outweigh them" in found.cause
    assert "inputs" not in found.next_step
