"""The start can be run again whatever a model is called with: arrays, lists, objects, or nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import harness


class Pair(NamedTuple):
    first: Tensor
    second: Tensor


class Graph:
    """Neither a tensor nor a container, but it can be cloned."""

    def __init__(self, x: Tensor) -> None:
        self.x = x

    def clone(self) -> Graph:
        return Graph(self.x.clone())


class Sealed:
    """Cannot be cloned."""

    def __init__(self, x: Tensor) -> None:
        self.x = x


class Net(nn.Module):
    """Reads its inputs as a function says; half of its biases are too low."""

    def __init__(self, read: Callable[..., Tensor]) -> None:
        super().__init__()
        self.read, self.one, self.act, self.two = read, nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1)
        nn.init.constant_(self.one.bias[:4].detach(), -20.0)

    def forward(self, *args: Any) -> Tensor:
        return self.two(self.act(self.one(self.read(*args))))


def of_a_list(given: Any) -> Tensor:
    assert isinstance(given, list)
    return given[0] + given[1]


def _copied(given: Any) -> Tensor:
    return given if isinstance(given, Tensor) else torch.from_numpy(given.copy())


#: What a model is called with, and how it reads this.
KINDS: dict[str, tuple[Callable[[Tensor], tuple[Any, ...]], Callable[..., Tensor]]] = {
    "array": (lambda x: (x.numpy(),), lambda given: torch.as_tensor(given)),
    "read-only array": (lambda x: (np.broadcast_to(x.numpy()[::-1], x.shape),), _copied),
    "list": (lambda x: ([x, x],), of_a_list),
    "named tuple": (lambda x: (Pair(x, x),), lambda given: given.first - given.second / 2),
    "object": (lambda x: (Graph(x),), lambda given: given.x),
    "number": (lambda x: (3,), lambda given: torch.linspace(-given, given, 64).view(16, 4)),
    "nothing": (lambda x: (), lambda: torch.linspace(-1, 1, 64).view(16, 4)),
}


def diagnosed(model: nn.Module, call: Callable[[Tensor], Tensor]) -> tuple[harness.Diagnosis, dict[str, Any]]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with harness.Recorder(model, optimizer=optimizer, census_every=5, evidence=True) as recorder:
        for _ in range(20):
            loss = call(torch.randn(16, 4)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            recorder.step(loss)
    return recorder.diagnose(), recorder.state_dict()


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_run_again(kind: str) -> None:
    given, read = KINDS[kind]
    torch.manual_seed(0)
    model = Net(read)
    found, _ = diagnosed(model, lambda x: model(*given(x)))
    assert found.label == "bias_init"
    assert "incomplete" not in str(found)


def test_what_cannot_be_copied_is_said() -> None:
    torch.manual_seed(0)
    model = Net(lambda given: given.x)
    found, _ = diagnosed(model, lambda x: model(Sealed(x)))
    assert "what the model is called with cannot be copied" in str(found)


def test_a_state_consists_of_tensors_and_plain_values(tmp_path: Any) -> None:
    torch.manual_seed(0)
    for kind in KINDS:
        given, read = KINDS[kind]
        model = Net(read)
        _, state = diagnosed(model, lambda x, model=model, given=given: model(*given(x)))
        torch.save(state, tmp_path / "state.pt")
        again = torch.load(tmp_path / "state.pt", weights_only=True)
        assert again["evidence"]["kept"]["uncopied"] is (kind in ("object", "named tuple"))


class Lazy(nn.Module):
    """Its forward uses no parameter: it returns a function, whose call uses a part."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net(lambda x: x)

    def forward(self) -> Callable[[Tensor], Tensor]:
        return self.net


def test_a_forward_that_returns_a_function() -> None:
    torch.manual_seed(0)
    model = Lazy()
    found, _ = diagnosed(model, lambda x: model()(x))
    assert found.label == "bias_init"
    assert "incomplete" not in str(found)


def test_arrays_are_copied() -> None:
    """What the loop writes into its array afterwards does not reach the evidence."""
    torch.manual_seed(0)
    model, buffer = Net(torch.as_tensor), np.zeros((16, 4), np.float32)

    def call(x: Tensor) -> Tensor:
        buffer[:] = x.numpy()
        out = model(buffer)
        buffer[:] = 1e6
        return out

    found, _ = diagnosed(model, call)
    assert found.label == "bias_init"
