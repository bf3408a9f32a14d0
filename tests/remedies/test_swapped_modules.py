"""ReLUs are swapped wherever they stand, or left with a reason."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from other_nets import closed
from torch import Tensor, nn

from harness.remedies import leaky_swap, sugar


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def shared_relu() -> nn.Sequential:
    act = nn.ReLU()
    model = nn.Sequential(nn.Linear(8, 12), act, nn.Linear(12, 12), act, nn.Linear(12, 3)).eval()
    closed(model[0])  # type: ignore[arg-type]
    closed(model[2])  # type: ignore[arg-type]
    return model


@pytest.mark.parametrize("swap", [sugar, lambda model: leaky_swap(model, torch.randn(32, 8), units="all")])
def test_a_module_at_several_places_is_swapped_at_all_of_them(swap: Callable[..., object]) -> None:
    model = shared_relu()
    swap(model)
    assert model[1] is model[3]
    assert type(model[1]) is not nn.ReLU
    assert not model[1].training


def test_a_module_that_the_forward_reaches_otherwise_stays() -> None:
    class Listed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.act = nn.Linear(8, 12), nn.ReLU()
            self.kept = [self.act]
            closed(self.a)

        def forward(self, x: Tensor) -> Tensor:
            return self.kept[0](self.a(x))

    model = Listed()
    with pytest.raises(ValueError, match="act cannot be replaced"):
        leaky_swap(model, torch.randn(32, 8))
    assert type(model.act) is nn.ReLU


def test_a_swapped_convolution_takes_single_images() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    closed(model[0])  # type: ignore[arg-type]
    x = torch.randn(4, 3, 8, 8)
    leaky_swap(model, x)
    assert torch.allclose(model(x[0]), model(x)[0], atol=1e-6)
    assert (model(x)[:, :4] < 0).all()


def test_a_relu_of_layers_of_different_widths_is_left_out() -> None:
    class Widths(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(8, 12), nn.Linear(12, 6), nn.Linear(6, 5)
            self.act, self.last = nn.ReLU(), nn.ReLU()
            closed(self.a)
            closed(self.c)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.c(self.act(self.b(self.act(self.a(x))))))

    model = Widths()
    with pytest.warns(UserWarning, match="act: it is called for layers of different shapes"):
        events = leaky_swap(model, torch.randn(32, 8))
    assert [(event.site, event.units) for event in events] == [("last", 4)]
    assert type(model.act) is nn.ReLU
