"""What a forward does beside its arithmetic, or is handed, is no obstacle to its being run again."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from small_trainings import stepped
from torch import Tensor, nn

import harness


class Hooked(nn.Module):
    """Sets a hook on its hidden layer, and keeps that layer's gradient, as pictures of attention need it."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(10, 16), nn.Linear(16, 3)
        nn.init.constant_(self.one.bias, -30.0)

    def forward(self, x: Tensor) -> Tensor:
        z = self.one(x)
        z.register_hook(lambda gradient: gradient.clamp(-1, 1))
        z.retain_grad()
        return self.two(torch.relu(z))


class Spread(nn.Module):
    """Takes means over the neighbours in a graph."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(10, 16), nn.Linear(16, 3)
        nn.init.constant_(self.one.bias, -30.0)

    def forward(self, x: Tensor, neighbours: Tensor) -> Tensor:
        return self.two(torch.relu(torch.sparse.mm(neighbours, self.one(x))))


def neighbours() -> Tensor:
    torch.manual_seed(1)
    table = torch.rand(30, 30).lt(0.2).float() + torch.eye(30)
    return table / table.sum(1, keepdim=True)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
@pytest.mark.parametrize("kind", ["hooked", "coo", "csr"])
def test_they_can_be_run_again(kind: str) -> None:
    torch.manual_seed(0)
    model: nn.Module = Hooked() if kind == "hooked" else Spread()
    table = neighbours()
    more = () if kind == "hooked" else (table.to_sparse_coo() if kind == "coo" else table.to_sparse_csr(),)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with harness.Recorder(model, optimizer=optimizer, census_every=5, evidence=True) as recorder:
        for _ in range(20):
            loss = nn.functional.cross_entropy(model(torch.randn(30, 10), *more), torch.arange(30) % 3)
            stepped(recorder, optimizer, loss)
    found = recorder.diagnose()
    assert not recorder.evidence().error
    assert found.label == "bias_init", found


@pytest.mark.parametrize("at", [0, 3])
def test_a_trace_taken_on_the_way_is_that_of_the_model(at: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with harness.Recorder(model, optimizer=optimizer, census_every=3, evidence=True) as recorder:
        for step in range(6):
            x = torch.randn(20, 10)
            if step == at:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # traces are deprecated
                    traced: Any = torch.jit.trace(model, x)
                assert torch.equal(traced(x), model(x))
                assert len(traced(x[:7])) == 7
            stepped(recorder, optimizer, nn.functional.cross_entropy(model(x), torch.arange(20) % 3))
    assert not recorder.evidence().error


class Once(nn.Module):
    """Refuses to be run again after its training, as one does that reads a stream."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.over = nn.Linear(10, 16), nn.Linear(16, 3), False

    def forward(self, x: Tensor) -> Tensor:
        if self.over:
            raise ValueError("the stream has ended")
        return self.two(torch.relu(self.one(x)))


def test_a_forward_that_cannot_be_run_again_fails_no_diagnosis() -> None:
    torch.manual_seed(0)
    model = Once()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with harness.Recorder(model, optimizer=optimizer, census_every=5, evidence=True) as recorder:
        for _ in range(10):
            loss = nn.functional.cross_entropy(model(torch.randn(30, 10)), torch.arange(30) % 3)
            stepped(recorder, optimizer, loss)
        model.over = True
    assert "the stream has ended" in recorder.evidence().error
    assert recorder.diagnose().text


def test_parameters_whose_memory_is_laid_out_anew() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with harness.Recorder(model, optimizer=optimizer, census_every=5, evidence=True) as recorder:
        for step in range(10):
            if step == 4:
                weight = model[0].get_parameter("weight")
                weight.data = weight.detach().t().contiguous().t()
            loss = nn.functional.cross_entropy(model(torch.randn(30, 10)), torch.arange(30) % 3)
            stepped(recorder, optimizer, loss)
    assert not recorder.evidence().error
    assert recorder.evidence().steps["update_norm"].gt(0).all()
