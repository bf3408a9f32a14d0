"""Trainings that go on after an error, wrap their optimizer, or have nothing to diagnose."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_trainings import diagnosed_by, inputs, stepped
from torch import Tensor, nn

import harness

X, Y = inputs()
CE = nn.functional.cross_entropy


class Small(nn.Module):
    """It has no memory for more than 64 inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.act, self.last = nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 5)
        nn.init.constant_(self.first.bias, -20.0)

    def forward(self, x: Tensor) -> Tensor:
        h = self.act(self.first(x))
        if len(x) > 64:
            raise RuntimeError("out of memory")
        return self.last(h)


def test_inputs_of_forwards_that_raised_are_not_run_again() -> None:
    torch.manual_seed(0)
    model = Small()

    def loss(step: int, rows: Tensor) -> Tensor:
        if step % 3 == 0:
            with pytest.raises(RuntimeError, match="out of memory"):
                model(X[:128])
        return CE(model(X[rows]), Y[rows])

    found = diagnosed_by(model, loss)
    assert found.label == "bias_init"
    assert "incomplete" not in found.text


class Wrapped(torch.optim.Optimizer):
    """Like Accelerate's: an optimizer by its type alone, which hands everything on."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    @property
    def param_groups(self) -> Any:  # type: ignore[override]
        return self.optimizer.param_groups

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.optimizer.zero_grad(set_to_none)

    def step(self, closure: Any = None) -> Any:
        return self.optimizer.step(closure)


def test_an_optimizer_in_a_wrapper_is_the_one_inside() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 5))
    optimizer = Wrapped(torch.optim.SGD(model.parameters(), lr=0.1))
    with harness.Recorder(model, optimizer=optimizer, census_every=10, evidence=True) as recorder:
        for rows in torch.randint(0, 4000, (20, 64)):
            stepped(recorder, optimizer, CE(model(X[rows]), Y[rows]))
    assert recorder.history()["grad_norm"].notna().all()
    assert recorder.evidence().steps["update_norm"].gt(0).all()


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.act, self.last = nn.LSTM(4, 16, 2, batch_first=True), nn.ReLU(), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.act(self.cell(x.view(-1, 5, 4))[1][0][-1]))


@pytest.mark.filterwarnings("ignore:.*is unobserved")
def test_the_last_layer_of_a_fused_network_makes_the_units_and_hides_no_constant() -> None:
    torch.manual_seed(0)
    model = Recurrent()
    with torch.no_grad():
        model.cell.get_parameter("bias_ih_l1")[32:48] -= 3.0  # the candidates, which decide the sign
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with harness.Recorder(model, optimizer=optimizer, census_every=10, evidence=True) as recorder:
        for rows in torch.randint(0, 4000, (20, 64)):
            stepped(recorder, optimizer, CE(model(X[rows]), Y[rows]))
    (site,) = [one for one in recorder.sites if one.name == "act"]
    assert set(site.producers) == {"cell.weight_hh_l1", "cell.weight_ih_l1"}
    found = recorder.diagnose()
    assert len(found.units) > 4
    assert found.label == "unknown"


def test_without_an_activation_there_is_nothing_to_speak_of() -> None:
    model = nn.Linear(20, 5)
    with (
        pytest.warns(UserWarning, match="nothing was observed"),
        pytest.raises(RuntimeError, match="in 60 steps no activation was seen"),
    ):
        diagnosed_by(model, lambda _, rows: CE(model(X[rows]), Y[rows]))


@pytest.mark.parametrize(("where", "label"), [("target", "labels"), ("weight", "weight_init")])
def test_a_training_that_was_not_finite_from_the_start_says_where(where: str, label: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 5))
    targets = X[:, :5].clone()
    if where == "target":
        targets[:, 2] = torch.nan
    else:
        nn.init.constant_(model[0].get_parameter("weight")[3], torch.nan)
    found = diagnosed_by(model, lambda _, rows: nn.functional.mse_loss(model(X[rows]), targets[rows]))
    assert found.label == label
    assert "the first loss was not finite" in found.cause
