"""If nothing is seen, a warning says so once, and training goes on; what cannot be counted has its reason."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import harness


class ByHand(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(4, 8), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        z = self.layer(x)
        return self.head((z + z.abs()) / 2)

    def encode(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.layer(x)))


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 8)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.layer(x))


def said_in(
    model: nn.Module, call: Callable[[Any], Tensor], steps: int, watched: bool
) -> tuple[Any, list[str]]:
    """Train, and return the recorder and what it warned of."""
    optimizer = torch.optim.SGD(model.parameters(), 1e-4)
    options: dict[str, Any] = {"census_every": 10, "optimizer": optimizer}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with harness.watch(model, **options) if watched else harness.Recorder(model, **options) as recorder:
            for _ in range(steps):
                call(model).square().mean().backward()
                optimizer.step()
                optimizer.zero_grad()
                if not watched:
                    recorder.step()
    assert recorder.steps == steps
    return recorder, [str(one.message) for one in said]


@pytest.mark.parametrize("watched", [True, False])
@pytest.mark.parametrize("steps", [5, 25])
@pytest.mark.parametrize("way", ["by hand", "encode", "eval", "never called"])
def test_it_is_said_once(way: str, steps: int, watched: bool) -> None:
    model = ByHand()
    calls: dict[str, Callable[[Any], Any]] = {
        "by hand": lambda model: model(torch.randn(8, 4)),
        "encode": lambda model: model.encode(torch.randn(8, 4)),
        "eval": lambda model: model.eval()(torch.randn(8, 4)),
        "never called": lambda model: sum(p.sum() for p in model.parameters()),
    }
    recorder, said = said_in(model, calls[way], steps, watched)
    assert recorder.latest is None
    (message,) = said
    assert message.startswith("nothing was observed")
    assert ("no forward pass" in message) == (way in ("eval", "never called"))


def test_a_block_in_which_nothing_happens_says_nothing() -> None:
    with harness.Recorder(ByHand()):
        pass


def test_a_census_that_is_asked_for_raises() -> None:
    model = ByHand()
    with warnings.catch_warnings(action="ignore"), harness.Recorder(model) as recorder:
        model(torch.randn(2, 4))
        with pytest.raises(ValueError, match="no activation was seen"):
            recorder.census()


def test_an_exception_of_the_training_is_not_followed_by_a_warning() -> None:
    model = ByHand()

    def broken() -> None:
        with harness.Recorder(model):
            model(torch.randn(2, 4))
            raise KeyError

    with pytest.raises(KeyError):
        broken()


@pytest.mark.parametrize("steps", [5, 25])
def test_nested_tensors_have_a_row_with_the_reason(steps: int) -> None:
    jagged = torch.nested.nested_tensor([torch.randn(3, 4), torch.randn(5, 4)], layout=torch.jagged)
    recorder, said = said_in(Nested(), lambda model: model(jagged).values(), steps, watched=False)
    assert recorder.latest[["site", "n", "state"]].to_numpy().tolist() == [[":relu", 0, "unobserved"]]
    assert said == [":relu (relu) is unobserved: cannot count a nested tensor"]
    assert "unobserved: :relu (relu): cannot count a nested tensor" in str(recorder.plan)


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_a_layer_without_units() -> None:
    model = nn.Sequential(nn.Linear(4, 0), nn.ReLU(), nn.Linear(0, 1))
    with pytest.warns(UserWarning, match="unobserved") as said:
        report = harness.scan(model, torch.randn(3, 4))
    assert [str(one.message) for one in said] == ["1 (relu) is unobserved: its layer has no units"]
    assert "Empty DataFrame" not in str(report)
    assert report.units.state.tolist() == ["unobserved"]
