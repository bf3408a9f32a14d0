"""A bias is a bias wherever it is added: behind the layer, per head, on units that are flattened later."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from small_trainings import diagnosed_by, inputs
from torch import Tensor, nn


class Shifted(nn.Module):
    """A layer without a bias, whose outputs the forward shifts by a parameter or by a constant."""

    def __init__(self, shift: Callable[[Shifted, Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(20, 32, bias=False), nn.Linear(32, 5)
        self.added, self.gain = nn.Parameter(torch.full((32,), -6.0)), nn.Parameter(torch.ones(32))
        self.shift = shift

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.shift(self, self.layer(x))))


class Heads(nn.Module):
    """Four layers of eight units each, with biases of their own, whose units are flattened or not."""

    def __init__(self, flat: bool) -> None:
        super().__init__()
        self.weight, self.bias = (
            nn.Parameter(torch.randn(4, 20, 8) / 5),
            nn.Parameter(torch.full((4, 8), -6.0)),
        )
        self.head, self.flat = nn.Linear(32, 5), flat

    def forward(self, x: Tensor) -> Tensor:
        z = (x.expand(4, -1, -1) @ self.weight).transpose(0, 1) + self.bias
        return self.head(torch.relu(z.flatten(1) if self.flat else z).flatten(1))


def label_of(model: nn.Module) -> str:
    x, y = inputs()
    found = diagnosed_by(model, lambda step, rows: nn.functional.cross_entropy(model(x[rows]), y[rows]))
    assert found.label in str(found)
    return found.label


@pytest.mark.parametrize(
    ("shift", "label"),
    [
        (lambda net, z: z + net.added, "bias_init"),
        (lambda net, z: z - 6.0, "constant"),
        (lambda net, z: (z - 6.0) * net.gain, "constant"),
    ],
    ids=["parameter", "constant", "constant and gain"],
)
def test_what_is_added_behind_a_layer(shift: Callable[[Shifted, Tensor], Tensor], label: str) -> None:
    torch.manual_seed(0)
    assert label_of(Shifted(shift)) == label


@pytest.mark.parametrize("flat", [True, False])
def test_the_biases_of_heads(flat: bool) -> None:
    torch.manual_seed(0)
    assert label_of(Heads(flat)) == "bias_init"
