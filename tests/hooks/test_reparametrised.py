"""grad_norm where a layer's weight is no parameter: never that of the bias alone, and never silently NaN."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import utils
from torch.nn.utils import parametrizations, prune

import harness


def train(first: nn.Module, inputs: int = 6) -> tuple[np.ndarray, list[str], dict[str, Tensor]]:
    """The norms of the census, the warnings, and the first layer's last gradients."""
    model = nn.Sequential(first, nn.ReLU(), nn.Linear(8, 1))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.01)
    gradients: dict[str, Tensor] = {}
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        with harness.Recorder(model, optimizer=optimizer, census_every=None) as recorder:
            for _ in range(4):
                model(torch.randn(5, inputs)).square().mean().backward()
                found = first.named_parameters()
                gradients = {name: p.grad.clone() for name, p in found if p.grad is not None}
                optimizer.step()
                optimizer.zero_grad()
                recorder.step()
    assert recorder.latest is not None
    own = [str(one.message) for one in given if "grad_norm" in str(one.message)]
    return recorder.latest.grad_norm.to_numpy(dtype=float), own, gradients


@pytest.mark.parametrize(
    "computed",
    [
        parametrizations.weight_norm,
        parametrizations.spectral_norm,
        parametrizations.orthogonal,
        utils.spectral_norm,
    ],
)
def test_a_computed_weight(computed: Callable[[nn.Module], nn.Module]) -> None:
    norms, messages, gradients = train(computed(nn.Linear(6, 8)))
    assert gradients["bias"].abs().max() > 0
    assert np.isnan(norms).all()
    assert len(messages) == 1
    assert "parametrization" in messages[0]


def test_a_pruned_layer() -> None:
    layer = nn.Linear(6, 8)
    prune.l1_unstructured(layer, "weight", 0.5)
    prune.l1_unstructured(layer, "bias", 0.25)
    norms, messages, gradients = train(layer)
    squares = gradients["weight_orig"].square().sum(1) + gradients["bias_orig"].square()
    np.testing.assert_allclose(norms, squares.sqrt(), rtol=1e-5)
    assert not messages


class Square(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(8, 8)), nn.Parameter(torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x, self.weight)


class Embedded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.table(x.abs().sum(1).long() % 5)


class Adapted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.base, self.down, self.up = nn.Linear(6, 8), nn.Linear(6, 2), nn.Linear(2, 8)
        self.base.requires_grad_(requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(x))


@pytest.mark.parametrize(
    ("first", "inputs", "reason"),
    [(Square, 8, "square"), (Embedded, 6, "embedding"), (Adapted, 6, "frozen")],
)
def test_other_layers_say_why(first: Callable[[], nn.Module], inputs: int, reason: str) -> None:
    norms, messages, _ = train(first(), inputs)
    assert np.isnan(norms).all()
    assert len(messages) == 1
    assert reason in messages[0]
