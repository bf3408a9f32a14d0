"""What `make` returns: its modes and draws stay the user's, and a mistake is named at once."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import harness

X = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))


class Frozen(nn.Module):
    """A network whose batch norm is fine-tuned with frozen statistics."""

    seen: ClassVar[list[bool]] = []

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm, self.head = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1)
        nn.init.constant_(self.layer.bias, -20.0)
        self.norm.eval()

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen.append(self.norm.training)
        return self.head(self.norm(self.layer(x)).relu())


def mean_square(model: nn.Module, batch: Tensor) -> Tensor:
    return (model(batch)[:, 0] - batch.sum(1)).square().mean()


def made(model: nn.Module, loss: Any = mean_square, **other: Any) -> tuple[Any, ...]:
    optimizer = other.get("optimizer", torch.optim.SGD)(model.parameters(), lr=0.01)
    return model, optimizer, X.split(16), loss, lambda model: -float(mean_square(model, X))


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))


def test_parts_in_evaluation_mode_stay_so() -> None:
    Frozen.seen.clear()
    harness.prescribe(lambda seed: made(Frozen()), steps=4, seeds=2, budget=2, workers=1)
    assert Frozen.seen
    assert not any(Frozen.seen)


def test_global_draws_of_numpy_and_python_are_those_of_the_seed() -> None:
    drawn: dict[int, set[tuple[float, ...]]] = {}

    def make(seed: int) -> tuple[Any, ...]:
        own = float(np.random.rand()), random.random(), float(torch.rand(1))
        drawn.setdefault(seed, set()).add(own)
        return made(network())

    random.seed(3)
    np.random.seed(3)
    before = random.getstate(), np.random.get_state()[1].tolist()  # pyright: ignore
    harness.prescribe(make, steps=4, seeds=2, budget=2, workers=1)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before  # pyright: ignore
    assert len(drawn) >= 2
    assert all(len(own) == 1 for own in drawn.values())


def test_a_model_that_comes_again_is_refused() -> None:
    model = network()
    with pytest.raises(ValueError, match="expected a new model at every call"):
        harness.prescribe(lambda seed: made(model), steps=4, seeds=2, budget=2, workers=1)


def test_a_frozen_part_may_come_again() -> None:
    shared = nn.Linear(4, 4).requires_grad_(False)
    harness.prescribe(
        lambda seed: made(nn.Sequential(shared, *network())), steps=4, seeds=2, budget=2, workers=1
    )


WRONG: dict[str, tuple[Callable[..., Any], dict[str, Any], type[Exception], str]] = {
    "no argument": (lambda: made(network()), {}, TypeError, "make: expected a function of one argument"),
    "words": (lambda seed: made(network()), {"steps": "10"}, TypeError, "steps: expected a whole number"),
    "no steps": (lambda seed: made(network()), {"steps": 0}, ValueError, "steps: expected at least 1"),
    "times": (lambda seed: made(network()), {"budget": "2x"}, TypeError, "budget: expected a number"),
    "a number": (
        lambda seed: made(network(), lambda model, batch: mean_square(model, batch).item()),
        {},
        TypeError,
        "loss: expected one number as a tensor with its graph.*returned float",
    ),
    "a dict": (
        lambda seed: made(network(), lambda model, batch: {"loss": mean_square(model, batch)}),
        {},
        TypeError,
        "returned dict",
    ),
    "a vector": (
        lambda seed: made(network(), lambda model, batch: model(batch).square()),
        {},
        ValueError,
        r"returned a tensor of shape \(16, 1\)",
    ),
    "a module": (lambda seed: made(network(), nn.MSELoss()), {}, TypeError, "as the fourth, but got MSELoss"),
    "LBFGS": (
        lambda seed: made(network(), optimizer=torch.optim.LBFGS),
        {},
        ValueError,
        "LBFGS computes the loss several times in a step",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_is_named(name: str) -> None:
    make, options, kind, message = WRONG[name]
    with pytest.raises(kind, match=message):
        harness.prescribe(make, **({"steps": 4, "seeds": 2, "budget": 2, "workers": 1} | options))
