"""Warnings about what was not observed never come before an exception of the user's own."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

import harness


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.used, self.unused = nn.Linear(4, 3), nn.ReLU(), nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        return self.used(self.layer(x))


def in_the_loss(model: nn.Module) -> None:
    raise KeyError("the user's own")


def in_the_forward(model: nn.Module) -> None:
    model(torch.rand(5, 9))


def in_the_data(model: nn.Module) -> None:
    def batches() -> Iterator[Tensor]:
        yield torch.rand(5, 4)
        raise OSError("no such file")

    for batch in batches():
        model(batch)


def recorded(model: nn.Module, fault: Callable[[nn.Module], None]) -> None:
    with harness.Recorder(model, census_every=None):
        model(torch.rand(5, 4))
        fault(model)


@pytest.mark.parametrize(
    ("fault", "error"), [(in_the_loss, KeyError), (in_the_forward, RuntimeError), (in_the_data, OSError)]
)
def test_only_the_users_exception_is_seen(fault: Callable[[nn.Module], None], error: type[Exception]) -> None:
    model = Unused()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with pytest.raises(error):
            recorded(model, fault)
    assert not said


def test_without_an_exception_it_is_said() -> None:
    model = Unused()
    with pytest.warns(UserWarning, match="it was never called"), harness.Recorder(model, census_every=None):
        model(torch.rand(5, 4))
