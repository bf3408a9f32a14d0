"""Diagnoses of odd starts, of several inputs, of bad batches, and of losses that are wrong themselves."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from small_trainings import diagnosed_by, inputs, plain
from torch import Tensor, nn

import harness

X, Y = inputs()


def of_classes(model: nn.Module, index: Tensor) -> Tensor:
    return nn.functional.cross_entropy(model(X[index]), Y[index])


@pytest.mark.parametrize(
    "how",
    [lambda w: nn.init.normal_(w, 0.0, 1e-3), lambda w: nn.init.constant_(w, 0.3)],
    ids=["tiny", "constant"],
)
def test_weights_that_are_tiny_or_alike_are_blamed_instead_of_the_steps(
    how: Callable[[Tensor], object],
) -> None:
    torch.manual_seed(0)
    model = plain()
    for layer in (model[0], model[2]):
        assert isinstance(layer, nn.Linear)
        how(layer.weight)
        nn.init.zeros_(layer.bias)
    found = diagnosed_by(model, lambda step, i: of_classes(model, i), steps=300, lr=0.5)
    assert found.label == "weight_init"
    assert "He's scale: units hardly differ" in found.text


def test_bad_batches_that_come_again_and_again() -> None:
    torch.manual_seed(0)
    model = plain()

    def loss_of(step: int, i: Tensor) -> Tensor:
        given = 100 * X[i] if step % 20 == 4 else X[i]
        return nn.functional.cross_entropy(model(given), Y[i])

    found = diagnosed_by(model, loss_of, steps=200, lr=0.1)
    assert found.label == "bad_batch"
    assert "the inputs' size" in found.text


def test_a_loss_without_a_lower_bound() -> None:
    torch.manual_seed(0)
    model = plain()
    loss_of = nn.functional.nll_loss  # without log_softmax
    found = diagnosed_by(model, lambda step, i: loss_of(model(X[i]), Y[i]), lr=0.1)
    assert found.label == "unbounded_loss"
    assert "the loss falls far below 0 and keeps falling" in found.text


def test_a_penalty_that_makes_the_steps_long_is_a_penalty() -> None:
    torch.manual_seed(0)
    model = plain()
    biases = [layer.bias for layer in model if isinstance(layer, nn.Linear)][:2]

    def loss_of(step: int, i: Tensor) -> Tensor:
        return of_classes(model, i) + torch.stack([(bias + 5).square().sum() for bias in biases]).sum()

    assert diagnosed_by(model, loss_of).label == "loss_penalty"


def test_a_training_that_diverges_is_not_put_down_to_births() -> None:
    torch.manual_seed(0)
    model = plain()
    nn.init.constant_(model[0].bias[:12].detach(), -9.0)  # type: ignore[index]
    found = diagnosed_by(model, lambda step, i: of_classes(model, i), lr=1e5)
    assert "Training diverged" in found.text
    assert found.label == "step_size"


def test_a_model_that_is_never_called_has_not_diverged() -> None:
    """Its copies compute the gradients, as those of asynchronous agents do."""
    model = nn.Sequential(nn.Linear(20, 8), nn.ReLU(), nn.Linear(8, 5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    recorder = harness.watch(model, optimizer, evidence=True)
    for _ in range(12):
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    with pytest.warns(UserWarning, match="it was never called"):
        recorder.close()
    found = recorder.diagnose()
    assert "diverged" not in found.text
    assert "the model itself was never called" in found.text


class Two(nn.Module):
    """Two inputs, each with layers of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Linear(20, 32), nn.ReLU())
        self.b = nn.Sequential(nn.Linear(20, 32), nn.ReLU())
        self.head = nn.Linear(64, 5)

    def forward(self, first: Tensor, *, second: Tensor) -> Tensor:
        return self.head(torch.cat([self.a(first), self.b(second)], 1))


@pytest.mark.parametrize(("since", "label"), [(0, "input_offset"), (60, "input_shift")])
def test_a_second_input_is_watched_like_the_first(since: int, label: str) -> None:
    torch.manual_seed(0)
    model = Two()

    def loss_of(step: int, i: Tensor) -> Tensor:
        second = X[i] * (1 if step <= since else 30)
        return nn.functional.cross_entropy(model(X[i], second=second), Y[i])

    found = diagnosed_by(model, loss_of, steps=140, lr=0.2)
    assert found.label == label
    said = "step 61: the inputs' size moved by" if since else "as the first layer gets them (b.0"
    assert said in found.text


def test_a_large_input_that_is_joined_to_hidden_units_is_named() -> None:
    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Sequential(nn.Linear(20, 48), nn.ReLU())
            self.rest = nn.Sequential(nn.Linear(49, 64), nn.ReLU(), nn.Linear(64, 5))

        def forward(self, x: Tensor, time: Tensor) -> Tensor:
            return self.rest(torch.cat([self.first(x), time], 1))

    torch.manual_seed(0)
    model = Joined()

    def loss_of(step: int, i: Tensor) -> Tensor:
        return nn.functional.cross_entropy(model(X[i], torch.full((64, 1), 15999.0 + step)), Y[i])

    found = diagnosed_by(model, loss_of, steps=30, lr=1e-9)
    assert found.label == "input_offset"
    assert "what layers hand on (rest.0, before rest.1), with inputs joined to it, 2.29e+03" in found.text


def test_arguments_that_are_sparse_or_infinite_hide_no_shift_of_the_first() -> None:
    class Graph(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.act, self.head = nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 5)

        def forward(self, x: Tensor, adjacency: Tensor, mask: Tensor) -> Tensor:
            mixed = torch.sparse.mm(adjacency, x) if adjacency.is_sparse else x
            return self.head(self.act(self.layer(mixed)))

    torch.manual_seed(0)
    model = Graph()
    adjacency, mask = torch.eye(64).to_sparse(), torch.full((64, 64), -math.inf)

    def loss_of(step: int, i: Tensor) -> Tensor:
        given = X[i] * (1 if step <= 60 else 30)
        return nn.functional.cross_entropy(model(given, adjacency, mask), Y[i])

    found = diagnosed_by(model, loss_of, steps=140, lr=0.2)
    assert found.label == "input_shift"
    assert "step 61: the inputs' size moved by 30" in found.text


@pytest.mark.filterwarnings("ignore:.*is a guess")
def test_a_relu_before_the_first_layer_shuts_negative_inputs_off() -> None:
    torch.manual_seed(0)
    x, layers = -X.abs(), [nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 5)]
    model = nn.Sequential(nn.ReLU(), *layers)
    loss_of = nn.functional.cross_entropy
    found = diagnosed_by(model, lambda step, i: loss_of(model(x[i]), Y[i]), steps=30, lr=0.01, probe=x[:300])
    assert found.label == "input_offset"
    assert "are all 0" in found.text
    assert "by chance" not in found.text


def test_a_norms_shift_is_no_usual_bias() -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(64)
    nn.init.constant_(norm.weight, 0.05)
    nn.init.constant_(norm.bias, -0.5)
    model = nn.Sequential(nn.Linear(20, 64), norm, nn.ReLU(), nn.Linear(64, 5))
    found = diagnosed_by(model, lambda step, i: of_classes(model, i), steps=30, lr=0.01, probe=X[:300])
    assert found.label == "bias_init"
    assert "by chance" not in found.text
