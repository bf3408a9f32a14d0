"""The edge and the sharpness of a network, held against what is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch.func import functional_call

from experiments.edges import Setting, bisect, squared
from harness.config import compose


@pytest.fixture
def setting() -> Setting:
    words = ["data=digits", "data.subset=96", "model=mlp", "model.depth=1", "model.width=6", "seed=3"]
    return Setting(compose(words), 2.0, squared)


def test_the_inputs_are_scaled(setting: Setting) -> None:
    assert setting.x.shape == (96, 64)
    assert float(setting.x.max()) == pytest.approx(2.0)


def test_sharpness_is_the_greatest_eigenvalue_of_the_hessian(setting: Setting) -> None:
    model = setting.network()
    names = [name for name, _ in model.named_parameters()]
    shapes = [parameter.shape for parameter in model.parameters()]
    flat = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])

    def loss(vector: torch.Tensor) -> torch.Tensor:
        parts = vector.split([shape.numel() for shape in shapes])
        values = {name: part.view(shape) for name, part, shape in zip(names, parts, shapes, strict=True)}
        return squared(functional_call(model, values, (setting.x,)), setting.y)

    hessian = torch.autograd.functional.hessian(loss, flat)
    assert isinstance(hessian, torch.Tensor)
    assert setting.sharpness(200) == pytest.approx(float(torch.linalg.eigvalsh(hessian)[-1]), rel=1e-3)


def test_units_live_at_no_rate_and_a_divergence_is_past_the_edge(setting: Setting) -> None:
    assert setting.dead(0.0, 3) < 0.5
    assert setting.dead(1e30, 3) == 1.0


def test_no_edge_in_the_bracket_is_none() -> None:
    assert math.isnan(bisect(lambda lr: 0.0, 0.1, 1.0, 5))
    assert math.isnan(bisect(lambda lr: 1.0, 0.1, 1.0, 5))
