"""scan: kinds of batches, nothing left behind, shares and limits."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from small_nets import global_hooks, hooks_of, small, x
from torch import Tensor, nn

import harness
from harness.selftest.case import kill
from harness.selftest.plain import mlp
from harness.selftest.unseen import NeverCalled


def test_kinds_of_batches() -> None:
    model = small()

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, batch: Tensor, scale: float = 1.0) -> Tensor:
            return self.inner(batch * scale)

    want = harness.scan(model, x(10)).units
    assert set(want.n) == {10}  # a bare tensor is one batch
    for batches in (
        [x(10)],
        iter([x(10)]),
        (x(10)[i : i + 5] for i in (0, 5)),
        [(x(10), torch.zeros(10))],
        [[x(10), "label"]],
    ):
        pd.testing.assert_frame_equal(
            harness.scan(model, batches).units.drop(columns="silent_for"), want.drop(columns="silent_for")
        )
    named = Named()
    for batches in ({"batch": x(10)}, [{"batch": x(10), "scale": 1.0}]):
        assert harness.scan(named, batches).units.active.tolist() == want.active.tolist()


class Noisy(nn.Module):
    """Draws random numbers and writes a buffer even in evaluation mode."""

    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.norm, self.act, self.drop = nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout()
        self.register_buffer("count", torch.zeros(1))

    def forward(self, batch: Tensor) -> Tensor:
        self.count += 1
        return self.drop(self.act(self.norm(self.fc(batch + 0.01 * torch.randn_like(batch)))))


@pytest.mark.parametrize("with_loss", [False, True])
@pytest.mark.parametrize("failing", [False, True])
def test_scan_restores_everything(with_loss: bool, failing: bool) -> None:
    torch.manual_seed(0)
    model = Noisy()
    model.train()
    model.norm.eval()
    model.fc.bias.grad = torch.full((4,), 3.0)
    model.fc.weight.requires_grad_(True)
    modes = {name: module.training for name, module in model.named_modules()}
    state = {k: v.clone() for k, v in model.state_dict().items()}
    hooks, everywhere = hooks_of(model), global_hooks()
    grads = {k: p.grad for k, p in model.named_parameters()}
    rng = torch.get_rng_state()

    def batches() -> Iterator[Tensor]:
        yield x(8)
        yield x(5)
        if failing:
            raise KeyError("mine")

    loss = (lambda output, batch: output.square().sum()) if with_loss else None
    if failing:
        with pytest.raises(KeyError, match="mine"):
            harness.scan(model, batches(), loss=loss)
    else:
        assert set(harness.scan(model, batches(), loss=loss).units.n) == {13}
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert hooks_of(model) == hooks
    assert global_hooks() == everywhere
    assert torch.equal(torch.get_rng_state(), rng)
    for name, parameter in model.named_parameters():
        assert parameter.grad is grads[name]
        assert parameter.requires_grad
    assert model.fc.bias.grad is not None
    assert model.fc.bias.grad.tolist() == [3.0] * 4
    assert torch.is_grad_enabled()


def test_scan_is_in_evaluation_mode() -> None:
    """Dropout is off and BatchNorm uses its running statistics."""
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.9), nn.ReLU())
    batch = x(40) + 5
    with torch.no_grad():
        z = copy.deepcopy(model).eval()[:3](batch)
    assert harness.scan(model, batch).units.active.tolist() == (z > 0).sum(0).tolist()


def test_scan_with_a_loss_sees_starvation() -> None:
    torch.manual_seed(0)
    model = mlp()
    kill(model[2], *range(8))
    batches = [(x(20, columns=6), torch.zeros(20, 3)), (x(20, seed=1, columns=6), torch.zeros(20, 3))]
    without = harness.scan(model, batches).units
    assert without.grad_rms.isna().all()
    assert "starved" not in set(without.state)
    seen: list[Any] = []

    def loss(output: Tensor, batch: Any) -> Tensor:
        seen.append(batch)
        return F.mse_loss(output, batch[1])

    units = harness.scan(model, batches, loss=loss).units
    assert [type(batch) for batch in seen] == [tuple, tuple]
    first = units[units.site == "1"].set_index("unit")
    assert set(first.state[[2, 7]]) == {"dead"}
    assert set(first.state.drop([2, 7])) == {"starved"}
    assert set(first.grad_rms) == {0.0}


def test_scan_under_no_grad_with_a_loss() -> None:
    """loss= asks for gradients, whatever the mode around it."""
    model = small()
    with torch.no_grad():
        units = harness.scan(model, x(), loss=lambda output, batch: output.square().sum()).units
    assert units.grad_rms.notna().all()


def test_dead_fraction_is_weighted_by_units() -> None:
    model: Any = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 8), nn.ReLU())
    torch.manual_seed(0)
    kill(model[0], 0)
    kill(model[2], 0, 1)
    with torch.no_grad():
        for layer, live in ((model[0], 1), (model[2], slice(2, 8))):
            layer.bias[live] = 10
    report = harness.scan(model, x())
    assert report.dead_fraction == pytest.approx(3 / 10)
    report.raise_if(dead=0.3)
    with pytest.raises(harness.DeadUnitsError):
        report.raise_if(dead=0.29)
    assert "dead" in str(report)
    assert list(report.summary.site) == ["1", "3"]
    assert report.summary.dead.tolist() == [1, 2]


def test_raise_if_is_strictly_greater() -> None:
    report = harness.scan(small(), x(1000))
    assert report.dead_fraction == 0.25
    report.raise_if(dead=0.25)
    with pytest.raises(harness.DeadUnitsError):
        report.raise_if(dead=0.2499)
    assert issubclass(harness.DeadUnitsError, Exception)


@pytest.mark.parametrize("limit", [0.0, 0.5, 1.0])
def test_nothing_observed_is_never_fine(limit: float) -> None:
    class Only(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.unused = nn.Linear(3, 2), nn.ReLU()

        def forward(self, batch: Tensor) -> Tensor:
            return self.fc(batch)

    with pytest.warns(UserWarning, match="unused"):
        report = harness.scan(Only(), x())
    assert np.isnan(report.dead_fraction)
    with pytest.raises(harness.DeadUnitsError):
        report.raise_if(dead=limit)


def test_unobserved_sites_do_not_dilute() -> None:
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match="unused"):
        report = harness.scan(NeverCalled(), x(500, columns=6))
    assert report.dead_fraction == pytest.approx(1 / 5)


@pytest.mark.parametrize(
    ("model", "batches", "kind"),
    [
        (None, x(), TypeError),
        (lambda batch: batch, x(), TypeError),
        (small(), [], ValueError),
        (small(), iter(()), ValueError),
        (small(), [3], TypeError),
        (small(), 3, TypeError),
        (small(), None, TypeError),
        (small(), [()], (TypeError, ValueError)),
    ],
)
def test_scan_arguments(model: Any, batches: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        harness.scan(model, batches)


def test_the_model_in_a_scan_may_be_recorded_too() -> None:
    """A scan inside a recorded training is no training input."""
    model = small()
    with harness.Recorder(model, census_every=None) as recorder:
        model(x(4))
        assert set(harness.scan(model, x(9)).units.n) == {9}
        model(x(2))
        assert set(recorder.census().n) == {6}


def test_running_statistics_are_named_where_they_decide() -> None:
    """The running mean is far above that of the batches: in evaluation mode alone all units are dead."""
    norm, layer = nn.BatchNorm1d(8), nn.Linear(4, 8)
    model = nn.Sequential(layer, norm, nn.ReLU())
    mean = norm.running_mean
    assert mean is not None
    mean.fill_(1000.0)
    said = "Norms used their running statistics"
    assert said in str(harness.scan(model, torch.randn(50, 4)))
    mean.zero_()
    assert said not in str(harness.scan(model, torch.randn(50, 4)))
    nn.init.constant_(layer.bias, -99.0)
    assert said not in str(harness.scan(nn.Sequential(layer, nn.ReLU()), torch.randn(50, 4)))
