"""Units that die and revive at steps that are known beforehand, and one that fires once in ten thousand."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import harness


class Unit(nn.Module):
    """v · relu(w x + b), one of each."""

    def __init__(self, w: float, b: float, v: float) -> None:
        super().__init__()
        self.inner, self.act, self.outer = nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1, bias=False)
        with torch.no_grad():
            self.inner.weight.fill_(w)
            self.inner.bias.fill_(b)
            self.outer.weight.fill_(v)

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(self.act(self.inner(x)))


@pytest.mark.parametrize("factor", [0.99, 1.01])
def test_one_step_of_gradient_descent_kills_exactly_beyond_its_bound(factor: float) -> None:
    """Loss ½(v relu(z) - y)²: the unit dies in one step iff lr > z / (v (v z - y)(x² + 1))."""
    w, b, v, x, y = 1.0, 0.5, 2.0, 1.5, 1.0
    z = w * x + b
    lr = factor * z / (v * (v * z - y) * (x * x + 1))
    model = Unit(w, b, v)
    optimizer = torch.optim.SGD(model.inner.parameters(), lr)
    with harness.Recorder(model, optimizer=optimizer, census_every=1) as recorder:
        for _ in range(3):
            loss = 0.5 * (model(torch.tensor([[x]])) - y).square().sum()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            recorder.step()
    life: Any
    (life,) = harness.lifetimes(recorder.history()).to_dict("records")
    assert not life["born_dead"]
    if factor > 1:
        assert life["died_at"] == 2  # killed by the first step: silent from the second window on
        last = recorder.census().iloc[0]
        assert last.grad_rms == last.grad_norm == 0.0
    else:
        assert pd.isna(life["died_at"])


class Pair(nn.Module):
    """A dead first-layer unit cannot move; a dead second-layer unit is moved by the layer before it."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.act1, self.two, self.act2 = nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 2), nn.ReLU()
        with torch.no_grad():
            self.one.weight.fill_(1.0)
            self.one.bias.zero_()
            self.two.weight.copy_(torch.tensor([[1.0], [1.0]]))
            self.two.bias.copy_(torch.tensor([0.0, -4.0]))

    def forward(self, x: Tensor) -> Tensor:
        return self.act2(self.two(self.act1(self.one(x))))


def test_a_unit_revives_at_the_step_that_arithmetic_says() -> None:
    """The first layer learns to put out more until the second unit's bias of -4 is overcome.

    Loss -first output, x = 1, only the first layer learns: w and b grow by lr each step, so in step t
    (from 1) h = 1 + 2 lr (t - 1), and the second unit's z = h - 4 is positive once 2 lr (t - 1) > 3.
    """
    lr = 0.25
    first = next(t for t in range(1, 100) if 1 + 2 * lr * (t - 1) - 4 > 0)
    assert first == 8
    model = Pair()
    optimizer = torch.optim.SGD(model.one.parameters(), lr)
    with harness.Recorder(model, optimizer=optimizer, census_every=1) as recorder:
        for _ in range(12):
            (-model(torch.ones(1, 1))[:, 0]).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            recorder.step()
    lives: dict[Any, Any] = {
        (row["site"], row["unit"]): row for row in harness.lifetimes(recorder.history()).to_dict("records")
    }
    assert lives["act2", 1]["born_dead"]
    assert lives["act2", 1]["revived_at"] == first
    assert not lives["act1", 0]["born_dead"]


@pytest.mark.parametrize("sizes", [(10_000,), (2500,) * 4, (1, 0, 9_998, 1)])
@pytest.mark.parametrize("live", [True, False])
def test_once_in_ten_thousand_is_alive(sizes: tuple[int, ...], live: bool) -> None:
    """Whatever the batches: exactly one of 10,000 inputs opens the gate of unit 0, none that of unit 1."""
    model: Any = nn.Sequential(nn.Linear(1, 2), nn.ReLU())
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0], [-1.0]]))
        model[0].bias.fill_(-0.5)
    inputs = torch.zeros(10_000, 1)
    inputs[7_654] = 1.0
    batches = list(inputs.split(sizes))
    if live:
        with harness.Recorder(model, census_every=None) as recorder:
            for batch in batches:
                model(batch).sum().backward()
                recorder.step()
        units = recorder.census()
    else:
        units = harness.scan(model, batches).units
    assert units.n.tolist() == [10_000] * 2
    assert units.active.tolist() == [1, 0]
    assert units.state.tolist() == ["rare", "dead"]
    assert units.rate_upper[1] == pytest.approx(1 - 0.05 ** (1 / 10_000), rel=1e-9)
    assert units.silent_for[1] == 10_000


def test_one_infinite_input_is_not_finite_for_that_unit_alone() -> None:
    """NaN and Inf reach the units that they reach; the others keep their verdict."""
    model: Any = nn.Sequential(nn.Conv1d(3, 3, 1, groups=3), nn.ReLU())
    with torch.no_grad():
        model[0].weight.fill_(1.0)
        model[0].bias.zero_()
    batch = torch.ones(4, 3, 2)
    batch[:, 2] = -1.0
    batch[1, 0, 1] = float("nan")
    with harness.Recorder(model, census_every=1) as recorder:
        for inputs in (batch, batch.nan_to_num(1.0)):
            model(inputs).sum().backward()
            recorder.step()
    history = recorder.history()
    assert history[history.step == 1].state.tolist() == ["non_finite", "always_on", "dead"]
    assert history[history.step == 1].non_finite.tolist() == [1, 0, 0]
    assert history[history.step == 2].state.tolist() == ["always_on", "always_on", "dead"]
