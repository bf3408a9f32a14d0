"""Models that call themselves, and activations called on leaves: parameters and trained inputs."""

from __future__ import annotations

import copy
import pickle
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import harness


class Tree(nn.Module):
    """Each inner node reads two trees of one level less; all of them share their weights."""

    def __init__(self) -> None:
        super().__init__()
        self.node, self.leaf = nn.Linear(16, 8), nn.Linear(8, 8)
        self.seen = Counter[str]()
        self.stops = False

    def forward(self, x: Tensor, depth: int = 3) -> Tensor:
        if self.stops and depth == 1:
            raise KeyboardInterrupt
        if depth == 0:
            z, name = self.leaf(x), ":relu"
        else:
            z, name = self.node(torch.cat([self(x, depth - 1), self(x + 1, depth - 1)], -1)), ":relu#1"
        self.seen[name] += len(z)
        return F.relu(z)


@pytest.mark.parametrize("batches", [1, 12])
def test_a_model_that_calls_itself_is_counted_from_its_first_forward(batches: int) -> None:
    torch.manual_seed(0)
    model = Tree()
    report = harness.scan(model, [torch.randn(16, 8) for _ in range(batches)])
    assert report.units.groupby("site")["n"].first().to_dict() == dict(model.seen)


def test_a_forward_that_was_interrupted_has_ended_at_the_next_step() -> None:
    torch.manual_seed(0)
    model = Tree()
    with harness.Recorder(model, census_every=None) as recorder:
        for step in range(12):
            model.stops = step == 3
            with suppress(KeyboardInterrupt):
                model(torch.randn(16, 8)).sum().backward()
            recorder.step()
        census = recorder.census()
    assert census.groupby("site")["n"].first().to_dict() == dict(model.seen)


def test_after_an_interrupted_forward_those_of_another_mode_do_not_count() -> None:
    torch.manual_seed(0)
    model = Tree()
    with harness.Recorder(model, census_every=None) as recorder:
        model(torch.randn(16, 8)).sum().backward()
        before, model.stops = dict(model.seen), True
        with suppress(KeyboardInterrupt):
            model(torch.randn(16, 8))
        model.stops, interrupted = False, Counter(model.seen) - Counter(before)
        model.eval()
        for _ in range(10):
            model(torch.randn(16, 8))
        model.train()
        census = recorder.census()
    counted = {site: before[site] + interrupted[site] for site in before}
    assert census.groupby("site")["n"].first().to_dict() == counted


class Gated(nn.Module):
    """A layer whose outputs are scaled by an activation of a parameter."""

    def __init__(self, act: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.head, self.act = nn.Linear(8, 16), nn.Linear(16, 1), act
        self.raw = nn.Parameter(torch.linspace(-1, 1, 16))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.layer(x)) * self.act(self.raw))


@pytest.mark.filterwarnings("ignore:.*is a guess")
@pytest.mark.parametrize("act", [nn.Softplus(), nn.ReLU(), F.softplus, torch.sigmoid, torch.Tensor.tanh])
@pytest.mark.parametrize("trains", [True, False])
def test_an_activation_of_a_parameter_leaves_no_hook(act: Callable[[Tensor], Tensor], trains: bool) -> None:
    torch.manual_seed(0)
    model = Gated(act)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    gradients = []
    with harness.Recorder(model, census_every=None) as recorder:
        for _ in range(20):
            loss = model(torch.randn(8, 8)).square().mean()
            assert len(model.raw._backward_hooks or ()) == 1
            pickle.dumps(model.raw)  # without a warning of torch's that a hook is lost
            if trains:
                loss.backward()
                assert not model.raw._backward_hooks
                gradients.append(copy.deepcopy(model.raw.grad))
                optimizer.step()
                optimizer.zero_grad()
            recorder.step()
        census = recorder.census()
    assert not model.raw._backward_hooks
    copy.deepcopy(model)
    rows = census[~census["site"].str.endswith("relu") | (census["n"] == 20)]
    assert rows["n"].tolist() == [20] * 16
    if trains:
        rms = torch.stack([g for g in gradients if g is not None]).square().mean(0).sqrt()
        assert rows["grad_rms"].tolist() == pytest.approx(rms.tolist(), rel=1e-5)


@pytest.mark.filterwarnings("ignore:.*is a guess")
def test_an_input_that_is_trained_keeps_no_hook() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.ReLU(), nn.Linear(8, 4))
    x = torch.randn(5, 8, requires_grad=True)
    gradients = []
    with harness.Recorder(model, census_every=None) as recorder:
        for _ in range(12):
            x.grad = None
            (model(x).sum() + model(x).square().sum()).backward()
            gradients.append(copy.deepcopy(x.grad))
            recorder.step()
        census = recorder.census()
    assert not x._backward_hooks
    assert (census["n"] == 120).all()
    rms = torch.stack([g for g in gradients if g is not None]).square().mean((0, 1)).sqrt()
    assert census["grad_rms"].tolist() == pytest.approx(rms.tolist(), rel=1e-5)
