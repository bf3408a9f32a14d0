"""Layers that are no modules: births and shares follow from the parameters that are their own."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import harness

UNITS = 24


class Affine(nn.Module):
    """One affine layer, spelled in many ways."""

    def __init__(self, spelling: str, bias: float) -> None:
        super().__init__()
        self.spelling = spelling
        self.inner = nn.Linear(8, UNITS)  # called by nobody
        nn.init.constant_(self.inner.bias, bias)
        self.weight = nn.Parameter(torch.randn(8, UNITS) / 8**0.5)
        self.bias = nn.Parameter(torch.full((UNITS,), bias))
        self.column = nn.Parameter(torch.full((UNITS, 1), bias))
        self.out = nn.Linear(UNITS, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.relu(self.z(x)))

    def z(self, x: Tensor) -> Tensor:
        w, b = self.weight, self.bias
        match self.spelling:
            case "F.linear":
                return F.linear(x, w.T, b)
            case "matmul":
                return x @ w + b
            case "addmm":
                return torch.addmm(b, x, w)
            case "einsum":
                return torch.einsum("bi,io->bo", x, w) + b
            case "transposed":
                return (w.T @ x.T + self.column).T
            case "normalised":
                return x @ (w / w.norm(dim=0)) + b
            case "convolution":
                return F.conv1d(x[:, :, None], w.T[:, :, None], b).squeeze(-1)
            case _:
                return x @ self.inner.weight.T + self.inner.bias


class Own(nn.Module):
    """A layer of somebody's own."""

    def __init__(self, bias: float) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(8, UNITS) / 8**0.5)
        self.shift = nn.Parameter(torch.full((UNITS,), bias))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bi,io->bo", x, self.kernel) + self.shift


def record(model: nn.Module, offset: float = 0.0, lr: float = 1e-4) -> harness.Recorder:
    optimizer = torch.optim.SGD(model.parameters(), lr)
    draw = torch.Generator().manual_seed(1)
    probe = torch.randn(128, 8, generator=draw) + offset
    with harness.Recorder(model, optimizer=optimizer, census_every=5, probe=probe, evidence=True) as recorder:
        for _ in range(10):
            x = torch.randn(32, 8, generator=draw) + offset
            loss = model(x).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            recorder.step(loss=loss)
    return recorder


SPELLINGS = ["F.linear", "matmul", "addmm", "einsum", "transposed", "normalised", "convolution", "inner"]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_low_bias_is_found_however_the_layer_is_spelled(spelling: str) -> None:
    torch.manual_seed(0)
    diagnosis = record(Affine(spelling, -8.0)).diagnose()
    assert diagnosis.label == "bias_init"
    assert "by their bias" in diagnosis.text
    assert "nan" not in diagnosis.text


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_off_centre_inputs_are_found_however_the_layer_is_spelled(spelling: str) -> None:
    torch.manual_seed(0)
    diagnosis = record(Affine(spelling, 0.0), offset=20.0).diagnose()
    assert diagnosis.label == "input_offset"
    assert "the model's inputs, as the first layer gets them" in diagnosis.text
    assert "layers below" not in diagnosis.text


def test_layers_of_ones_own() -> None:
    torch.manual_seed(0)
    first = nn.Sequential(Own(-8.0), nn.ReLU(), nn.Linear(UNITS, 1))
    assert record(first).diagnose().label == "bias_init"


def test_the_same_evidence_as_of_a_module() -> None:
    torch.manual_seed(0)
    spelled = Affine("matmul", -1.5)
    layer = nn.Linear(8, UNITS)
    plain = nn.Sequential(layer, nn.ReLU(), spelled.out)
    with torch.no_grad():
        layer.weight.copy_(spelled.weight.T)
        layer.bias.copy_(spelled.bias)
    plain = copy.deepcopy(plain)
    ours, usual = record(spelled, lr=0.1).evidence(), record(plain, lr=0.1).evidence()
    columns = [c for c in usual.units if c not in ("site", "starved_by", "rate_eval")]
    for column in columns:
        a, b = (table.units[column].to_numpy(float) for table in (ours, usual))
        assert a == pytest.approx(b, abs=2e-3, nan_ok=True), column
    for column in ("weight_z", "gain", "growth", "input_rms", "off_centre", "input_rms_now"):
        assert ours.layers[column].iloc[0] == pytest.approx(usual.layers[column].iloc[0], rel=1e-4), column


def test_what_cannot_be_known_is_said() -> None:
    class Normed(nn.Module):
        """What closes these units lies before a norm that is a function."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(8, UNITS))
            self.gain = nn.Parameter(torch.ones(UNITS))
            self.out = nn.Linear(UNITS, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(F.relu(F.layer_norm(x @ self.weight, (UNITS,), self.gain)))

    torch.manual_seed(0)
    diagnosis = record(Normed(), offset=20.0).diagnose()
    assert diagnosis.label == "unknown"
    assert "what closed them is neither a bias" in diagnosis.text
    assert "nan" not in diagnosis.text


class TopK(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        values, places = z.topk(4, -1)
        return torch.zeros_like(z).scatter(-1, places, values.relu())


def chosen(z: Tensor) -> Tensor:
    return torch.zeros_like(z, dtype=torch.bool).scatter(-1, z.topk(4, -1).indices, True) & (z > 0)


@pytest.mark.parametrize(("offset", "bias", "label"), [(0.0, -8.0, "bias_init"), (20.0, 0.0, "input_offset")])
def test_births_of_declared_gates_that_only_inputs_tell(offset: float, bias: float, label: str) -> None:
    harness.declare_activation(TopK, open=chosen)
    try:
        torch.manual_seed(0)
        layer = nn.Linear(8, UNITS)
        nn.init.constant_(layer.bias, bias)
        diagnosis = record(nn.Sequential(layer, TopK(), nn.Linear(UNITS, 1)), offset).diagnose()
    finally:
        harness.undeclare_activation(TopK)
    assert diagnosis.label == label
    assert "layers below" not in diagnosis.text


def test_explain_gives_the_weights_and_the_bias_of_single_parameters() -> None:
    torch.manual_seed(0)
    model = Affine("matmul", -8.0)
    recorder = record(model)
    text = recorder.explain(":relu", 3)
    assert f"weights     norm {model.weight[:, 3].norm():.4g} now (weight)" in text
    assert f"bias        {float(model.bias[3].detach()):.4g} now (bias)" in text


def test_explain_without_evidence_gives_what_the_plan_names() -> None:
    torch.manual_seed(0)
    model = Affine("matmul", -8.0)
    with harness.Recorder(model, census_every=None) as recorder:
        model(torch.randn(16, 8))
        recorder.census()
    text = recorder.explain(":relu", 3)
    assert f"weights     norm {model.weight[:, 3].norm():.4g} now (weight)" in text
    assert "its other parameters are found with evidence=True alone" in text
