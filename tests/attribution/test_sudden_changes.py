"""What happens at once is named, whatever had died before, and though no later census is finite."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from small_trainings import diagnosed_by, inputs, plain, stepped
from torch import Tensor, nn

import harness

X, Y = inputs()


def with_deaths() -> nn.Sequential:
    """A network in which a fifth of the units is dead."""
    model = plain()
    for layer in model:
        if isinstance(layer, nn.Linear) and layer.out_features == 32:
            nn.init.constant_(layer.bias[:7].detach(), -30.0)
    return model


@pytest.mark.parametrize("value", [torch.inf, torch.nan])
def test_an_input_that_is_not_finite(value: float) -> None:
    torch.manual_seed(0)
    model = with_deaths()

    def loss_of(step: int, rows: Tensor) -> Tensor:
        x = X[rows].clone()
        if step == 45:
            x[3, 2] = value
        return F.cross_entropy(model(x), Y[rows])

    found = diagnosed_by(model, loss_of, probe=X[:500])
    assert found.label == "bad_batch"
    assert "inputs were not finite" in str(found)


def test_layers_that_others_replace() -> None:
    torch.manual_seed(0)
    model = plain()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with harness.Recorder(model, optimizer=optimizer, census_every=10, evidence=True) as recorder:
        for step in range(1, 61):
            if step == 31:
                model[2] = new = nn.Linear(32, 32)
                nn.init.constant_(new.bias.detach()[:24], -30.0)
                optimizer.param_groups[0]["params"] = list(model.parameters())
            rows = torch.randint(0, 4000, (64,))
            stepped(recorder, optimizer, F.cross_entropy(model(X[rows]), Y[rows]))
    found = recorder.diagnose()
    assert found.label == "surgery"
    assert "others in place of 2.bias, 2.weight" in str(found)


class Scaled(nn.Module):
    """Scales its hidden layer by a number of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.gain = nn.Linear(20, 32), nn.Linear(32, 5), 1.0

    def forward(self, x: Tensor) -> Tensor:
        return self.two(torch.relu(self.gain * self.one(x)))


def test_a_number_that_changes_just_before_the_training_diverges() -> None:
    torch.manual_seed(0)
    model = Scaled()

    def loss_of(step: int, rows: Tensor) -> Tensor:
        model.gain = 1e4 if step > 42 else 1.0
        return (model(X[rows]) - X[rows, :5]).square().mean()

    found = diagnosed_by(model, loss_of)
    assert found.label == "forward"
    assert "gain went from 1 to 1e+04" in str(found)


def test_a_bad_batch_that_a_norm_hides_from_the_loss() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 5))

    def loss_of(step: int, rows: Tensor) -> Tensor:
        return F.cross_entropy(model(X[rows] * (1e4 if step == 45 else 1)), Y[rows])

    found = diagnosed_by(model, loss_of, probe=X[:500])
    assert found.label == "bad_batch"


def test_a_decay_below_0() -> None:
    torch.manual_seed(0)
    model = plain()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    optimizer.param_groups[0]["weight_decay"] = -2.0  # torch refuses it as an argument
    loss = lambda step, rows: F.cross_entropy(model(X[rows]), Y[rows])  # noqa: E731
    found = diagnosed_by(model, loss, optimizer=optimizer, steps=200)
    assert found.label == "decay"
    assert "weight decay is negative" in str(found)
    assert found.next_step.startswith("Make the weight decay positive")


CHANGES = {"zeros": lambda x: 0 * x, "constant": torch.ones_like, "small": lambda x: x / 255}


@pytest.mark.parametrize("lr", [0.1, 1.0])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_inputs_that_hardly_vary_from_some_step_on(change: Callable[[Tensor], Tensor], lr: float) -> None:
    """They are blamed though steps are long, as nobody died before."""
    torch.manual_seed(0)
    model = plain()

    def loss_of(step: int, rows: Tensor) -> Tensor:
        return F.cross_entropy(model(change(X[rows]) if step > 100 else X[rows]), Y[rows])

    found = diagnosed_by(model, loss_of, steps=220, lr=lr)
    if found.label != "none":
        assert found.label == "input_shift", found
        assert "step 101: " in found.cause
        assert ("were all 0, and stayed so" in found.cause) == (change is CHANGES["zeros"])
    else:
        assert lr == 0.1


@pytest.mark.parametrize("at", [6, 7, 8, 13])
def test_an_early_jump_of_the_learning_rate_has_its_own_date(at: int) -> None:
    torch.manual_seed(0)
    model = plain()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)

    def loss_of(step: int, rows: Tensor) -> Tensor:
        optimizer.param_groups[0]["lr"] = 0.05 if step < at else 8.0
        return F.cross_entropy(model(X[rows]), Y[rows])

    found = diagnosed_by(model, loss_of, optimizer=optimizer, probe=X[:300])
    assert found.label == "step_size"
    assert f"step {at}: the learning rate rose to 160×" in str(found)


def test_writes_in_every_step_are_usual_from_the_first_on() -> None:
    """A layer that is normalised before each forward, as in sparse autoencoders, has another first size."""
    torch.manual_seed(0)
    model = plain()

    def loss_of(step: int, rows: Tensor) -> Tensor:
        with torch.no_grad():
            weight = model[2].get_parameter("weight")
            weight.div_(weight.norm(dim=1, keepdim=True))
        return F.cross_entropy(model(X[rows]), Y[rows])

    found = diagnosed_by(model, loss_of, lr=0.3, steps=100)
    assert "surgery" not in found.events["label"].tolist()
