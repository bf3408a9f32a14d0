"""Every census of every awkward model equals slow truth, live and after the fact."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import harness
from harness.selftest.cases import CASES
from harness.selftest.checks import CHECKS, built, checks_of, watched_training
from harness.selftest.compare import assert_same_census
from harness.selftest.truth import true_scan


@pytest.mark.parametrize(
    ("name", "check"),
    [
        pytest.param(name, check, id=f"{name}-{check}")
        for name, case in CASES.items()
        for check in checks_of(case)
    ],
)
def test_known_truth(name: str, check: str) -> None:
    assert CHECKS[check](CASES[name], "cpu") == []


@pytest.mark.parametrize("name", ["mlp", "encoder", "conv batchnorm dropout", "resnet"])
@pytest.mark.parametrize("observe", ["eval", "all"])
def test_evaluation_passes(name: str, observe: str) -> None:
    case = CASES[name]
    model = built(case).eval()
    twin = copy.deepcopy(model)
    with harness.Recorder(model, census_every=None, observe=observe) as recorder, torch.no_grad():
        for x in case.batches():
            model(x)
        census = recorder.census()
    true = true_scan(twin, case.reference, case.sites, case.batches())
    assert_same_census(census, true)


def test_one_position_is_alive() -> None:
    """A channel that opens at a single position of a single image is not dead."""
    model: Any = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU())
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([1.0, -1]).reshape(2, 1, 1, 1))
        model[0].bias.fill_(-0.5)
    x = torch.zeros(2, 1, 30, 30)
    x[1, 0, 29, 29] = 1
    units = harness.scan(model, x).units.set_index("unit")
    assert units.n.tolist() == [1800, 1800]
    assert units.active.tolist() == [1, 0]
    assert units.state.tolist() == ["rare", "dead"]


def test_starved_units_are_named() -> None:
    case = CASES["starved"]
    history = watched_training(case, built(case), census_every=5).history()
    first = history[history.site == "1"].set_index("unit")
    assert set(first.drop(index=[2, 7]).state) == {"starved"}
    assert set(first.loc[[2, 7]].state) == {"dead"}


def test_wrapped_names() -> None:
    """Prefixes of wrappers are no part of a name."""
    case = CASES["shared relu"]
    model = built(case)
    wrapped = nn.DataParallel(model)
    assert set(harness.scan(wrapped, case.batches()).units.site) == {"relu", "relu#1", "relu#2"}


def test_gate_eps() -> None:
    """A leaky slope below ε is a closed gate."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.LeakyReLU(0.05))
    x = torch.randn(64, 3)
    z = model[0](x)
    wide, narrow = harness.scan(model, x), harness.scan(model, x, gate_eps=0.1)
    assert wide.units.active.tolist() == [64] * 4
    assert narrow.units.active.tolist() == (z > 0).sum(0).tolist()


def test_float64_and_bfloat16() -> None:
    for dtype in (torch.float64, torch.bfloat16):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.ReLU()).to(dtype)
        x = torch.randn(64, 3, dtype=dtype)
        z = model[0](x).detach().to(torch.float64)
        units = harness.scan(model, x).units
        assert units.active.tolist() == (z > 0).sum(0).tolist()
        torch.testing.assert_close(torch.tensor(units["mean"].to_numpy()), z.mean(0), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(torch.tensor(units["max"].to_numpy()), z.amax(0), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("offset", "scale"), [(0.0, 1.0), (100.0, 0.1), (-1e4, 3.0), (0.0, 1e25), (0.0, 1e-18)]
)
@pytest.mark.parametrize("shape", [(6000, 3), (7, 3, 40, 40), (900, 3, 7)])
def test_numbers_of_many_inputs(shape: tuple[int, ...], offset: float, scale: float) -> None:
    """Sums of many, large, small and off-centre values keep five digits."""
    torch.manual_seed(0)
    z = torch.randn(shape) * scale + offset
    units = harness.scan(nn.Sequential(nn.Identity(), nn.ReLU()), z, axis={"1": 1}).units
    wide = z.double().movedim(1, -1).reshape(-1, 3)
    assert units.active.tolist() == (wide > 0).sum(0).tolist()
    assert units["max"].tolist() == wide.amax(0).tolist()
    std = wide.std(0, correction=0)
    torch.testing.assert_close(torch.tensor(units["std"].to_numpy()), std, rtol=1e-5, atol=0)
    near = 1e-5 * (std + wide.mean(0).abs())
    assert (abs(torch.tensor(units["mean"].to_numpy()) - wide.mean(0)) <= near).all()


@pytest.mark.parametrize("scale", [1e-20, 1e-25, 1e-30, 1e15, 1e22])
@pytest.mark.parametrize("shape", [(16, 3), (8, 3, 5, 5), (2, 3, 20, 20)])
def test_tiny_gradients_are_not_zero(shape: tuple[int, ...], scale: float) -> None:
    """A unit is starved only if its gradient is exactly 0, and a large one is finite."""
    torch.manual_seed(0)
    z, upstream = torch.randn(shape), torch.randn(shape) * scale
    model = nn.Sequential(nn.Identity(), nn.ReLU())
    with harness.Recorder(model, census_every=None, axis={"1": 1}) as recorder:
        model(z.requires_grad_()).backward(upstream)
        units = recorder.census()
    want = (upstream * (z > 0)).double().movedim(1, -1).reshape(-1, 3).square().mean(0).sqrt()
    assert set(units.state) == {"active"}
    torch.testing.assert_close(torch.tensor(units.grad_rms.to_numpy()), want, rtol=1e-5, atol=0)
