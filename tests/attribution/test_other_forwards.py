"""A forward that does something else than before is blamed, however it came to do so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_trainings import diagnosed_by, inputs, plain, stepped
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

import harness

X, Y = inputs()
PROBE = X[:200]
CE = nn.functional.cross_entropy


class Shifted(nn.Module):
    """Subtracts from hidden units what a global flag, or its own attribute, says."""

    def __init__(self, shift: Callable[[], float], *, grows: float = 0.0) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(20, 32), nn.Linear(32, 32), nn.Linear(32, 5)
        self.shift, self.grows, self.own = shift, grows, 0.0

    def forward(self, x: Tensor) -> Tensor:
        self.own += self.grows * self.training
        h = torch.relu(self.first(x)) - self.shift() - self.own
        return self.last(torch.relu(self.second(h) - self.own))


class Summed(nn.Module):
    """A norm that adds up the means instead of averaging them."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(32))

    def forward(self, x: Tensor) -> Tensor:
        mean = self.get_buffer("mean")
        if self.training:
            mean.add_(0.1 * x.detach().abs().mean(0))
        return x - mean


def trained(
    model: nn.Module, change: Callable[[int], Any], steps: int = 200, **options: Any
) -> harness.Diagnosis:
    def loss(step: int, rows: Tensor) -> Tensor:
        change(step)
        return CE(model(X[rows]), Y[rows])

    return diagnosed_by(model, loss, steps=steps, probe=PROBE, **options)


def test_a_flag_that_no_module_holds_is_seen_in_the_outputs_and_by_the_first_network() -> None:
    torch.manual_seed(0)
    flag = [0.0]
    found = trained(Shifted(lambda: flag[0]), lambda step: flag.__setitem__(0, 10.0 * (step > 100)))
    assert found.label == "forward"
    assert "step 101: the loss rose" in found.cause
    assert "with its first parameters, the network as it runs now closes" in found.cause


def test_an_attribute_that_grows_from_the_first_step_on_is_named() -> None:
    torch.manual_seed(0)
    found = trained(Shifted(lambda: 0.0, grows=0.05), lambda _: None)
    assert found.label == "forward"
    assert "own went from" in found.cause


def test_a_buffer_that_the_forward_spoils_is_named() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 32), Summed(), nn.ReLU(), nn.Linear(32, 5))
    found = trained(model, lambda _: None)
    assert found.label == "forward"
    assert "with the first buffers" in found.cause
    assert "the buffer 1.mean changed" in found.cause


def test_evaluation_mode_that_stays_on_is_dated() -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(32, momentum=1e-3)
    model = nn.Sequential(nn.Linear(20, 32), norm, nn.ReLU(), nn.Linear(32, 5))

    def change(step: int) -> None:
        if step == 101:
            model.eval()

    with torch.no_grad():
        model[0].bias.sub_(20.0)  # type: ignore[operator]
    with pytest.warns(UserWarning, match="a mode that is not observed"):
        found = trained(model, change)
    assert any("from step 101 on: no forward in training mode" in text for text in found.events["text"])


def test_a_changed_structure_is_surgery() -> None:
    torch.manual_seed(0)
    model = plain()

    def change(step: int) -> None:
        if step == 101:
            prune.custom_from_mask(model[2], "weight", (model[2].get_parameter("weight") < 0).float())

    found = trained(model, change)
    assert found.label == "surgery"
    assert "2.weight → 2.weight_mask, 2.weight_orig" in found.cause


def test_a_parametrized_weight_is_read_as_it_is_used() -> None:
    torch.manual_seed(0)
    model = plain()
    nn.init.uniform_(model[2].weight, 0.0, 0.1)  # type: ignore[arg-type]
    parametrizations.weight_norm(model[2])
    with torch.no_grad():
        model[2].parametrizations.weight.original0.neg_()  # type: ignore[union-attr, operator]
    with pytest.warns(UserWarning, match="computed from other parameters"):
        found = trained(model, lambda _: None, steps=60, lr=1e-3)
    assert found.label == "weight_init"


def test_a_norm_of_one_value_leaves_nothing_of_its_units() -> None:
    torch.manual_seed(0)
    norm = nn.GroupNorm(32, 32)
    model = nn.Sequential(nn.Linear(20, 32), norm, nn.ReLU(), nn.Linear(32, 5))
    with torch.no_grad():
        norm.bias.sub_(0.01)
    found = trained(model, lambda _: None, steps=30)
    assert found.label == "norm_stats"
    assert "leaves nothing of these units, which are the same on all inputs" in found.cause


def test_outputs_that_end_in_a_relu_are_named() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 8), nn.ReLU())
    targets = X[:, :8] - 3.0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = harness.Recorder(model, optimizer=optimizer, census_every=10, evidence=True, probe=PROBE)
    with recorder:
        for _ in range(150):
            rows = torch.randint(0, 4000, (64,))
            stepped(recorder, optimizer, nn.functional.mse_loss(model(X[rows]), targets[rows]))
    found = recorder.diagnose()
    assert found.label == "constant"
    assert "are outputs of the model, which end in a ReLU" in found.cause
