"""grad_norm in loops of every kind: that of the last optimizer step of a window, or NaN, never another."""

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import harness
from harness.kernels import dispatch


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))


def norms(layer: nn.Module) -> np.ndarray:
    assert isinstance(layer, nn.Linear)
    assert layer.weight.grad is not None
    assert layer.bias.grad is not None
    squares = layer.weight.grad.double().square().sum(1) + layer.bias.grad.double().square()
    return squares.sqrt().numpy()


def latest(recorder: harness.Recorder) -> pd.DataFrame:
    assert recorder.latest is not None
    return recorder.latest


def batches(n: int) -> list[torch.Tensor]:
    return list(torch.randn(n, 16, 4, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.LBFGS])
def test_a_closure_makes_the_gradients(optimizer: Callable[..., torch.optim.Optimizer]) -> None:
    model = net()
    opt = optimizer(model.parameters(), lr=0.1)
    with harness.Recorder(model, optimizer=opt, census_every=1) as recorder:
        for x in batches(4):

            def closure(x: torch.Tensor = x) -> Any:
                opt.zero_grad()
                loss = model(x).square().mean()
                loss.backward()
                return loss

            opt.step(closure)
            used = norms(model[0])
            recorder.step()
            np.testing.assert_allclose(latest(recorder).grad_norm, used)


def test_several_optimizers_with_closures() -> None:
    models = [net(), net()]
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1) for model in models]
    both = nn.Sequential(*models)
    both.forward = lambda x: models[0](x) + models[1](-x)  # type: ignore[method-assign]
    recorder = harness.Recorder(both, optimizer=optimizers, census_every=1)
    for x in batches(2):
        with recorder:  # attached twice
            both(x).square().mean().backward()
            used = np.concatenate([norms(model[0]) for model in models])
            for opt in optimizers:
                opt.step(lambda: 0.0)
            recorder.step()
        np.testing.assert_allclose(latest(recorder).grad_norm, used)


def zero_by_none(model: nn.Module) -> None:
    model.zero_grad(set_to_none=True)


def zero_in_place(model: nn.Module) -> None:
    model.zero_grad(set_to_none=False)


def zero_behind(model: nn.Module) -> None:
    for p in model.parameters():
        if p.grad is not None:
            p.grad.data.zero_()


@pytest.mark.parametrize("zero", [zero_by_none, zero_in_place, zero_behind])
@pytest.mark.parametrize("steps", [1, 7, 17, 40, 61])
def test_a_window_closed_by_hand(zero: Callable[[nn.Module], None], steps: int) -> None:
    model = net()
    opt = torch.optim.SGD(model.parameters(), lr=0.01)
    used = np.empty(0)
    with harness.Recorder(model, optimizer=opt, census_every=None) as recorder:
        for x in batches(steps):
            model(x).square().mean().backward()
            used = norms(model[0])
            opt.step()
            zero(model)
            recorder.step()
        with torch.no_grad():
            model.eval()(batches(1)[0])
        np.testing.assert_allclose(recorder.census().grad_norm, used)


def test_accumulation_and_late_steps() -> None:
    model = net()
    opt = torch.optim.SGD(model.parameters(), lr=0.01)
    used = np.empty(0)
    with harness.Recorder(model, optimizer=opt, census_every=50) as recorder:
        for i, x in enumerate(batches(203), 1):
            model(x).square().mean().backward()
            if i % 4 == 0:
                used = norms(model[0])
                opt.step()
                opt.zero_grad()
            recorder.step()
            if i % 50 == 0:
                np.testing.assert_allclose(latest(recorder).grad_norm, used)


def test_a_fused_optimizer_unscales_by_itself() -> None:
    model, plain = net(), net()
    opt = torch.optim.SGD(model.parameters(), lr=0.01, fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    with harness.Recorder(model, optimizer=opt, census_every=1) as recorder:
        x = batches(1)[0]
        scaler.scale(model(x).square().mean()).backward()
        scaler.step(opt)
        scaler.update()
        recorder.step()
    plain(x).square().mean().backward()
    np.testing.assert_allclose(recorder.census().grad_norm, norms(plain[0]), rtol=1e-5)


def test_nothing_is_kept_alive_in_a_forward() -> None:
    """Gradients may wait for a census by hand, but not while the next forward and backward need memory."""
    model = net()
    opt = torch.optim.SGD(model.parameters(), lr=0.01)
    alive: list[bool] = []
    last: Callable[[], object] = object
    with harness.Recorder(model, optimizer=opt, census_every=None) as recorder:
        for x in batches(40):
            loss = model(x).square().mean()
            if recorder.steps:
                alive.append(last() is not None)
            loss.backward()
            last = weakref.ref(model[0].weight.grad)
            opt.step()
            opt.zero_grad()
            recorder.step()
    assert not any(alive)


def test_a_weight_with_its_units_in_columns() -> None:
    """`x @ weight + bias`, as GPT-2's layers are written: the norm is that of a column."""

    class Columns(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3, 5))
            self.bias = nn.Parameter(torch.zeros(5))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.addmm(self.bias, x, self.weight)

    torch.manual_seed(0)
    layer = Columns()
    model = nn.Sequential(layer, nn.ReLU(), nn.Linear(5, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with harness.Recorder(model, optimizer=optimizer, census_every=None) as recorder:
        model(torch.randn(20, 3)).sum().backward()
        assert layer.weight.grad is not None
        assert layer.bias.grad is not None
        norm = (layer.weight.grad.square().sum(0) + layer.bias.grad.square()).sqrt()
        optimizer.step()
        recorder.step()
        census = recorder.census()
    assert census.grad_norm.tolist() == pytest.approx(norm.tolist(), rel=1e-5)


def test_a_forward_that_begins_under_a_transform_hides_no_gradient() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with harness.Recorder(model, optimizer=optimizer, census_every=5) as recorder:
        for x in batches(10):
            slope = torch.func.grad(lambda one: model(one).sum())(x)
            optimizer.zero_grad()
            (model(x).square().mean() + slope.square().mean()).backward()
            optimizer.step()
            recorder.step()
    assert np.allclose(latest(recorder)["grad_norm"], norms(model[0]))


def test_rounding_makes_no_loop_look_as_if_it_changed_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of a sum depends on where in memory a copy lies: 15 digits, not all, are the same."""
    square, read = dispatch.unit_squares, []

    def rounded(weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        read.append(weight)
        return square(weight, bias) * (1 + 1e-15 * (-1) ** len(read))

    monkeypatch.setattr(dispatch, "unit_squares", rounded)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with harness.Recorder(model, optimizer=optimizer, census_every=100) as recorder:
        for step in range(1, 100):
            model(torch.randn(16, 4)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            recorder.step()
            if step == 20:
                read.clear()
        assert len(read) < 10
