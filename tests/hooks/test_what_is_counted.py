"""Which forwards count, and which calls in them."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from small_nets import sgd, small, x
from torch import Tensor, nn

import harness
from harness.selftest.case import kill
from harness.selftest.forms import Functional
from harness.selftest.machinery import Checkpointed
from harness.selftest.sharing import BasicBlock, Mixed


@pytest.mark.parametrize(("observe", "n"), [("train", 3), ("eval", 5), ("all", 8)])
@pytest.mark.parametrize("grad", [True, False])
def test_observe(observe: str, n: int, grad: bool) -> None:
    """The root's mode decides; grad mode plays no part."""
    model = small()
    with (
        harness.Recorder(model, observe=observe, census_every=None) as recorder,
        torch.set_grad_enabled(grad),
    ):
        model.train()(x(3))
        model.eval()(x(5))
        model[0].train()
        model[1].train()
        assert set(recorder.census().n) == {n}


def test_inference_mode() -> None:
    model = small().eval()
    with harness.Recorder(model, observe="eval", census_every=None) as recorder, torch.inference_mode():
        model(x(5))
        assert set(recorder.census().n) == {5}


@pytest.mark.parametrize(("root_only", "n"), [(True, 4), (False, 13)])
def test_parts_count_that_are_called_by_themselves(root_only: bool, n: int) -> None:
    model = small()
    with harness.Recorder(model, census_every=None, root_only=root_only) as recorder:
        model(x(4))
        model[1](model[0](x(9)))
        assert set(recorder.census().n) == {n}


class Late(nn.Module):
    """An activation that is first called as a function after some forwards."""

    def __init__(self, first: int) -> None:
        super().__init__()
        self.fc, self.act, self.head = nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4)
        self.first, self.forwards = first, 0

    def forward(self, batch: Tensor) -> Tensor:
        self.forwards += 1
        z = self.head(self.act(self.fc(batch)))
        return F.relu(z) if self.forwards >= self.first else z


@pytest.mark.parametrize("first", [1, 2, 3, 6])
def test_a_function_called_late(first: int) -> None:
    """Every forward counts, also those of a branch that was not taken at first."""
    model = Late(first)
    with harness.Recorder(model, census_every=None) as recorder:
        for _ in range(10):
            model(x(2))
        census = recorder.census()
    assert census.groupby("site").n.first().to_dict() == {"act": 20, ":relu": 2 * (11 - first)}


def test_maximum_of_two_data_tensors_is_no_activation() -> None:
    """Even where one of them happens to be zero everywhere."""

    class Larger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.act = nn.Linear(3, 4), nn.Linear(3, 4), nn.ReLU()
            kill(self.b, 0, 1, 2, 3)

        def forward(self, batch: Tensor) -> Tensor:
            return torch.maximum(self.a(batch), self.act(self.b(batch)))

    assert set(harness.scan(Larger(), x()).units.site) == {"act"}


def test_batches_with_and_without_positions() -> None:
    """The channel axis of a BatchNorm is 1, whatever follows it."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm1d(5), nn.ReLU())
    flat, long = torch.randn(4, 5), torch.randn(2, 5, 5)
    with harness.Recorder(model, census_every=None, observe="eval") as recorder:
        model.eval()(flat)
        model(long)
        census = recorder.census()
    rows = torch.cat([flat, long.transpose(1, 2).reshape(-1, 5)])
    assert census.n.tolist() == [14] * 5
    assert census.active.tolist() == (rows > 0).sum(0).tolist()


def test_functions_outside_the_model_do_not_count() -> None:
    torch.manual_seed(0)
    model = Functional("relu", F.relu)
    with harness.Recorder(model, census_every=None) as recorder:
        F.relu(model(x(4, columns=6)))
        F.relu(torch.randn(3, 3))
        census = recorder.census()
    assert set(census.site) == {":relu", ":relu#1"}
    assert set(census.n) == {4}


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_recomputation_is_not_counted(reentrant: bool, accumulate: int) -> None:
    torch.manual_seed(0)
    model = Checkpointed(reentrant)
    with harness.Recorder(model, census_every=None) as recorder:
        for i in range(accumulate):
            model(x(4, i, 6)).square().sum().backward()
        census = recorder.census()
    assert set(census.n) == {4 * accumulate}
    assert census.grad_rms.notna().all()


def copies(model: nn.Module) -> Iterator[nn.Module]:
    yield copy.deepcopy(model)
    yield pickle.loads(pickle.dumps(model))
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    yield torch.load(buffer, weights_only=False)


@pytest.mark.parametrize("make", [small, lambda: Functional("relu", torch.relu), Mixed, BasicBlock])
def test_copies_of_an_attached_model_do_not_count(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    model = make()
    batch = {"Sequential": x(4), "BasicBlock": torch.randn(4, 4, 3, 3)}.get(
        type(model).__name__, x(4, columns=6)
    )
    optimizer = sgd(model)
    with harness.Recorder(model, optimizer=optimizer, census_every=None) as recorder:
        for _ in range(2):
            model(batch).sum().backward()  # also copy a model that has run
            for twin in copies(model):
                twin(batch).sum().backward()
                for a, b in zip(twin.parameters(), model.parameters(), strict=True):
                    assert torch.equal(a, b)
        census = recorder.census()
        per_forward = 4 * (9 if isinstance(model, BasicBlock) else 1)
        assert set(census.n) <= {2 * per_forward, 4 * per_forward}  # Mixed uses one layer under two sites
        assert census.n.min() == 2 * per_forward


def test_state_dict_of_an_attached_model() -> None:
    model = small()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with harness.Recorder(model, census_every=None):
        model(x())
        after = model.state_dict()
        assert list(after) == list(before)
        assert all(torch.equal(after[k], before[k]) for k in before)
        assert len(list(model.modules())) == 4
        assert len(list(model.buffers())) == 0
        small().load_state_dict(after)
    assert list(model.state_dict()) == list(before)


class Trying(nn.Module):
    """Calls its activation with arguments that it may not take, and then without."""

    def __init__(self, *args: int, **kwargs: int) -> None:
        super().__init__()
        self.fc, self.act, self.args, self.kwargs = nn.Linear(3, 4), nn.ReLU(), args, kwargs

    def forward(self, batch: Tensor) -> Tensor:
        z = self.fc(batch)
        try:
            return self.act(z, *self.args, **self.kwargs)
        except TypeError:
            return self.act(z)


@pytest.mark.parametrize("model", [Trying(lengths=3), Trying(3), Trying(3, lengths=4), Trying()])
@pytest.mark.parametrize("forwards", [1, 3, 30])
def test_a_call_that_raises_is_none(model: Trying, forwards: int) -> None:
    with harness.Recorder(model, census_every=None) as recorder:
        for _ in range(forwards):
            model(x(2)).sum().backward()
        assert set(recorder.census().n) == {2 * forwards}
