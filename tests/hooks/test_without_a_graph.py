"""Forwards without a graph are learned and then counted without a trace, with the same numbers."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import harness
from harness.hooks.discovery import Trace

COLUMNS = ["site", "unit", "n", "active", "mean", "max"]


class Branches(nn.Module):
    """One activation module and one function, each called on several layers of equal width."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Linear(4, 4) for _ in range(3))
        self.act, self.skip = nn.ReLU(), False

    def forward(self, x: Tensor) -> Tensor:
        hidden = x if self.skip else self.act(self.first(x))
        hidden = self.act(self.second(hidden))
        if len(x) > 6:  # decided by the shape
            hidden = F.relu(self.first(hidden) + 1)
        return F.relu(self.third(hidden))


class Truth:
    """Pre-activations by layer, from plain hooks."""

    def __init__(self, model: Branches) -> None:
        self.n, self.active = dict.fromkeys("012", 0), {}
        for name, layer in zip("012", (model.first, model.second, model.third), strict=True):
            layer.register_forward_hook(partial(self._add, name))

    def _add(self, name: str, layer: nn.Module, given: tuple[Tensor, ...], z: Tensor) -> None:
        self.n[name] += len(z)
        self.active[name] = self.active.get(name, 0) + (z > 0).sum(0)


def traces(monkeypatch: pytest.MonkeyPatch) -> list[Trace]:
    """The traces of forwards, as they begin."""
    begun: list[Trace] = []
    start = Trace.start

    def record(self: Trace, values: list[object]) -> None:
        begun.append(self)
        start(self, values)

    monkeypatch.setattr(Trace, "start", record)
    return begun


def watched(model: nn.Module, run: Callable[[], None], steps: int) -> pd.DataFrame:
    with harness.Recorder(model, census_every=None) as recorder:
        for _ in range(steps):
            run()
            recorder.step()
    assert recorder.latest is not None
    return recorder.latest


def test_few_forwards_are_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, model = traces(monkeypatch), Branches()

    def run() -> None:
        with torch.no_grad():
            model(torch.randn(5, 4))

    units = watched(model, run, 100)
    assert len(begun) < 16
    assert set(units.n) == {500}
    assert units.site.nunique() == 3


@pytest.mark.parametrize("where", [torch.no_grad, torch.inference_mode, nullcontext])
def test_sites_of_one_caller_are_told_apart(where: Callable[[], torch.no_grad]) -> None:
    """Under no_grad, in inference, and in a frozen model whose forwards record a graph."""
    torch.manual_seed(0)
    model = Branches()
    model.requires_grad_(requires_grad=False)
    truth = Truth(model)

    def run() -> None:
        with where():
            model(torch.randn(5, 4))

    units = watched(model, run, 60)
    found = [rows.active.tolist() for _, rows in units.groupby("site", sort=False)]
    assert found == [truth.active[name].tolist() for name in "012"]


def test_every_shape_is_learned_anew() -> None:
    """The longer batches take another way, which is first seen when the short ones are known."""
    torch.manual_seed(0)
    model, sizes = Branches(), [5] * 20 + [7, 5, 7, 5, 8, 5] * 10
    left = iter(sizes)

    def run() -> None:
        with torch.no_grad():
            model(torch.randn(next(left), 4))

    units = watched(model, run, len(sizes))
    long = sum(size for size in sizes if size > 6)
    counts = units.groupby("site", sort=False).n.first().to_dict()
    assert counts == {"act": sum(sizes), "act#1": sum(sizes), ":relu": sum(sizes), ":relu#1": long}


def test_between_forwards_that_train() -> None:
    """Acting without a graph, as in reinforcement learning, counts like training does."""
    torch.manual_seed(0)
    model = Branches()
    truth, optimizer = Truth(model), torch.optim.SGD(model.parameters(), 0.01)

    def run() -> None:
        with torch.no_grad():
            for _ in range(5):
                model(torch.randn(3, 4))
        model(torch.randn(6, 4)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    units = watched(model, run, 40)
    found = [rows.active.tolist() for _, rows in units.groupby("site", sort=False)]
    assert found == [truth.active[name].tolist() for name in "012"]
    assert set(units.n) == {40 * 21}
    assert not units.grad_rms.isna().any()


class Functional(Branches):
    """The same with layers called as functions, which no hook sees."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ParameterList(torch.randn(4, 4) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        hidden = x if self.skip else self.act(F.linear(x, self.layers[0]))
        hidden = self.act(F.linear(hidden, self.layers[1]))
        return F.relu(F.linear(hidden, self.layers[2]))


def in_varying_order(model: Branches) -> pd.Series:
    """Inputs by site; nothing in the arguments shows that the first layer is skipped."""
    states = iter([False] * 20 + [True] + [False, True] * 20)

    def run() -> None:
        model.skip = next(states)
        with torch.no_grad():
            model(torch.randn(5, 4))

    n = watched(model, run, 61).groupby("site").n.first()
    assert n["act"] + n["act#1"] == 5 * (61 + 40)  # none is lost
    return n


def test_layers_tell_calls_apart_whose_order_varies() -> None:
    n = in_varying_order(Branches())
    assert n["act"] == 5 * 40


def test_an_order_that_varies_is_said() -> None:
    with pytest.warns(UserWarning, match="varying order"):
        n = in_varying_order(Functional())
    assert abs(n["act"] - 5 * 40) <= 5  # the forward before it was noticed


def test_the_same_as_when_each_is_traced() -> None:
    def census(*, per_call: bool) -> pd.DataFrame:
        torch.manual_seed(0)
        model = Branches()
        with (
            warnings.catch_warnings(),
            harness.Recorder(model, census_every=None, per_call=per_call) as recorder,
        ):
            for _ in range(40):
                with torch.no_grad():
                    model(torch.randn(5, 4))
                recorder.step()
        assert recorder.latest is not None
        return recorder.latest

    found, wanted = census(per_call=False), census(per_call=True)
    assert found[COLUMNS[1:4]].equals(wanted[COLUMNS[1:4]])
