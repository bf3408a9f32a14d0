"""Autocast, gradient scaling, frozen layers, functional calls and function transforms."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, stack_module_state, vmap

import harness


def make(*, frozen: bool = False) -> tuple[nn.Linear, nn.Sequential]:
    torch.manual_seed(0)
    first = nn.Linear(6, 5)
    with torch.no_grad():
        first.bias[2] = -100.0
    first.requires_grad_(not frozen)
    return first, nn.Sequential(first, nn.ReLU(), nn.Linear(5, 2))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_counts_what_the_activation_saw(dtype: torch.dtype) -> None:
    first, model = make()
    x = torch.randn(30, 6)
    with harness.Recorder(model, census_every=None) as recorder, torch.autocast("cpu", dtype):
        model(x).float().square().mean().backward()
        recorder.step()
    with torch.autocast("cpu", dtype):
        z = first(x)
    units = recorder.census()
    assert z.dtype is dtype
    assert units["active"].tolist() == (z > 0).sum(0).tolist()
    np.testing.assert_allclose(units["max"], z.float().amax(0).detach(), rtol=1e-6)
    assert units["state"].tolist()[2] == "dead"
    assert (units["grad_rms"] > 0).sum() == 4


def test_grad_norm_is_that_of_the_unscaled_gradients() -> None:
    first, model = make()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    x = torch.randn(30, 6)
    with harness.Recorder(model, optimizer=optimizer, census_every=1) as recorder:
        scaler.scale(model(x).square().mean()).backward()
        scaler.step(optimizer)
        scaler.update()
        recorder.step()
        optimizer.zero_grad()
    model(x).square().mean().backward()
    assert first.weight.grad is not None
    assert first.bias.grad is not None
    norm = (first.weight.grad.square().sum(1) + first.bias.grad.square()).sqrt()
    np.testing.assert_allclose(recorder.census()["grad_norm"], norm, rtol=1e-5)


def test_a_frozen_layer_has_activations_and_no_gradient() -> None:
    _, model = make(frozen=True)
    with harness.Recorder(model, census_every=None) as recorder:
        model(torch.randn(30, 6)).square().mean().backward()
    units = recorder.census()
    assert set(units["n"]) == {30}
    assert units["grad_rms"].isna().all()
    assert units["grad_norm"].isna().all()
    assert "starved" not in set(units["state"])


def test_functional_call_and_grad_are_counted() -> None:
    first, model = make()
    x = torch.randn(30, 6)
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def loss(values: dict[str, torch.Tensor]) -> torch.Tensor:
        return functional_call(model, values, (x,)).square().mean()

    said = pytest.warns(UserWarning, match="grad_rms is not known: it is of the passes of backward()")
    with said, harness.Recorder(model, census_every=None) as recorder:
        loss(parameters)
        grad(loss)(parameters)
        recorder.step()
    assert recorder.census()["active"].tolist() == (2 * (first(x) > 0).sum(0)).tolist()


def test_vmap_is_unobserved_with_the_reason() -> None:
    _, model = make()
    stacked, _ = stack_module_state([make()[1], make()[1]])
    x = torch.randn(30, 6)
    with harness.Recorder(model, census_every=None) as recorder:
        out = vmap(lambda values: functional_call(model, values, (x,)))(stacked)
        with pytest.warns(UserWarning, match=r"1 \(relu\) is unobserved: it was called under vmap"):
            units = recorder.census()
    assert out.shape == (2, 30, 2)
    assert units["state"].tolist() == ["unobserved"]


def test_thresholds_by_two_tensor_max_are_seen() -> None:
    class Max(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = make()[0]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            z = self.layer(x)
            return torch.max(z, torch.zeros_like(z)).max(dim=1).values

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        units = harness.scan(Max(), torch.randn(30, 6)).units
    assert set(units["site"]) == {":maximum"}
    assert units["state"].tolist()[2] == "dead"
