"""Recorder.explain: one unit's evidence."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

import harness

# Of reparametrised layers and of layers that are frozen in part.
pytestmark = pytest.mark.filterwarnings("ignore:.*grad_norm is not known")


def test_a_unit_that_dies_and_revives_is_told_with_its_steps() -> None:
    layer = nn.Linear(1, 2)
    model = nn.Sequential(layer, nn.ReLU())
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0], [2.0]]))
        layer.bias.zero_()
    x = torch.rand(50, 1) + 1
    with harness.Recorder(model, census_every=1) as recorder:
        for bias in (0.0, -9.0, 0.0):
            with torch.no_grad():
                layer.bias[1] = bias
            model(x).sum().backward()
            recorder.step()
        text = recorder.explain("1", 1)
        assert "alive at step 1, died by step 2, revived by step 3" in text
        assert "bias        0 now" in text
        assert "norm 2 now" in text
        assert "open on 50 of 50" in text
        with pytest.raises(ValueError, match=r"1 \(2 units\)"):
            recorder.explain("nowhere", 0)
        with pytest.raises(ValueError, match="one of its units"):
            recorder.explain("1", 2)
    with pytest.raises(RuntimeError, match="needs a census"):
        harness.Recorder(model).explain("1", 0)


def test_a_model_of_which_nothing_can_be_seen_says_so_after_the_block() -> None:
    model = nn.RNN(3, 4, nonlinearity="relu")
    with pytest.warns(UserWarning, match="fused kernel"), harness.Recorder(model) as recorder:
        model(torch.randn(5, 2, 3))
    units = recorder.census()
    assert units["state"].tolist() == ["unobserved"]
    assert units["n"].tolist() == [0]


@pytest.mark.parametrize("kind", ["weight_norm", "spectral_norm", "pruned"])
def test_a_reparametrised_layer_has_weights_and_no_nan(kind: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    ways = {
        "weight_norm": parametrizations.weight_norm,
        "spectral_norm": parametrizations.spectral_norm,
        "pruned": lambda layer: prune.random_unstructured(layer, "weight", 0.5),
    }
    layer: Any = ways[kind](model[0])  # type: ignore[operator]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with harness.Recorder(model, optimizer=optimizer, census_every=1) as recorder:
        model(torch.rand(50, 4)).sum().backward()
        optimizer.step()
        recorder.step()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        text = recorder.explain("1", 1)
    assert "nan" not in text
    with torch.no_grad():
        layer.eval()
        assert f"weights     norm {layer.weight[1].norm():.4g} now" in text
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_scale_of_a_norm_is_not_its_bias() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU())
    with harness.Recorder(model, census_every=1) as recorder:
        model(torch.rand(50, 4))
        recorder.step()
    text = recorder.explain("2", 1)
    assert "weight      1 now" in text
    assert "bias        0 now" in text


@pytest.mark.parametrize("kind", ["unobserved", "non_finite", "one input", "old weight_norm", "orthogonal"])
def test_what_is_not_known_is_said_and_is_no_nan(kind: str) -> None:
    torch.manual_seed(0)
    layer: Any = nn.Linear(4, 3)
    if kind == "old weight_norm":
        with pytest.warns(FutureWarning):
            layer = torch.nn.utils.weight_norm(layer)
    elif kind == "orthogonal":
        layer = parametrizations.orthogonal(layer)
    model = nn.Sequential(layer, nn.ReLU())
    with harness.Recorder(model, census_every=1, probe=torch.rand(3, 4)) as recorder:
        if kind != "unobserved":
            x = torch.rand(1 if kind == "one input" else 5, 4)
            model(x * torch.inf if kind == "non_finite" else x)
        recorder.step()
    text = recorder.explain("1", 0)
    assert "nan" not in text.lower().replace("nan or infinite on all", "")
    assert "e+02 %" not in text


@pytest.mark.parametrize(
    ("activation", "says"),
    [
        (nn.ReLU(), "linear on these inputs"),
        (nn.Tanh(), "which does not make it linear"),
        (nn.GELU(), "which does not make it linear"),
        (nn.LeakyReLU(), "which does not make it linear"),
        (nn.Hardtanh(-50.0, 50.0), "linear on these inputs"),
    ],
)
def test_always_on_is_linear_for_straight_activations_alone(activation: nn.Module, says: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), activation)
    nn.init.constant_(model[0].bias, 3.0)  # type: ignore[arg-type]
    with harness.Recorder(model, census_every=1) as recorder:
        model(torch.rand(50, 4))
        recorder.step()
    assert says in recorder.explain("1", 0)
