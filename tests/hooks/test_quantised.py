"""Fused and quantised models: float ones and quantisation-aware training are counted, int8 has its rows."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import harness

quantisation = pytest.importorskip("torch.ao.quantization", exc_type=ImportError)
zoo = pytest.importorskip("torchvision.models.quantization", exc_type=ImportError)
ENGINE = next(
    (e for e in ("x86", "fbgemm", "qnnpack") if e in torch.backends.quantized.supported_engines), ""
)
pytestmark = [
    pytest.mark.skipif(not ENGINE, reason="this torch is built without a quantised engine"),
    pytest.mark.filterwarnings("ignore"),
]
FUSED = "it is fused and quantised: its pre-activations are never in memory"


class Small(nn.Module):
    """Every pair that is fused: convolution, norm and ReLU; a residual sum; a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.quant, self.dequant = quantisation.QuantStub(), quantisation.DeQuantStub()
        self.conv, self.norm, self.relu = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()
        self.conv2, self.relu2 = nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()
        self.add = torch.ao.nn.quantized.FloatFunctional()
        self.fc, self.relu3, self.head = nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)
        nn.init.constant_(self.norm.bias[:1].detach(), -50.0)
        nn.init.constant_(self.fc.bias[1:2].detach(), -50.0)

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu(self.norm(self.conv(self.quant(x))))
        h = self.add.add_relu(h, self.relu2(self.conv2(h)))
        return self.dequant(self.head(self.relu3(self.fc(h.mean((2, 3))))))


PAIRS = [["conv", "norm", "relu"], ["conv2", "relu2"], ["fc", "relu3"]]
BATCH = torch.randn(8, 2, 6, 6, generator=torch.Generator().manual_seed(0))


def fused() -> Any:
    return quantisation.fuse_modules(Small().eval(), PAIRS)


def aware() -> Any:
    model = quantisation.fuse_modules_qat(Small().train(), PAIRS)
    model.qconfig = quantisation.get_default_qat_qconfig(ENGINE)
    return quantisation.prepare_qat(model)


def int8(model: Any) -> Any:
    torch.backends.quantized.engine = ENGINE
    model.qconfig = quantisation.get_default_qconfig(ENGINE)
    prepared = quantisation.prepare(model)
    prepared(BATCH)
    return quantisation.convert(prepared)


def test_fused_in_float_is_counted_as_before() -> None:
    plain = harness.scan(Small(), BATCH)
    both = harness.scan(fused(), BATCH)
    assert both.summary.site.tolist() == ["conv.1", "conv2.1", ":relu", "fc.1"]
    assert both.units.active.tolist() == plain.units.active.tolist()
    assert both.units.n.tolist() == plain.units.n.tolist()


def test_quantisation_aware_training_is_counted() -> None:
    model = aware()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
    with harness.Recorder(model, optimizer=optimizer, census_every=None) as recorder:
        for _ in range(12):
            model(BATCH).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            recorder.step()
        census = recorder.census()
    n = {"conv:relu": 12 * 8 * 36, "conv2:relu": 12 * 8 * 36, ":relu": 12 * 8 * 36, "fc:relu": 12 * 8}
    assert {site: set(rows.n) for site, rows in census.groupby("site")} == {k: {v} for k, v in n.items()}
    dead = census[census.state == "dead"]
    assert {("conv:relu", 0), ("fc:relu", 1)} <= set(zip(dead.site, dead.unit, strict=True))


def test_int8_modules_are_unobserved_rows() -> None:
    report = harness.scan(int8(fused()), BATCH)
    assert set(report.units.site) == {"conv:relu", "conv2:relu", ":relu", "fc:relu"}
    assert set(report.units.state) == {"unobserved"}
    assert {site.reason for site in report.plan.unobserved} == {FUSED}
    with pytest.raises(harness.DeadUnitsError):
        report.raise_if(dead=1)
    model = int8(fused())
    with harness.Recorder(model, observe="eval", census_every=None) as recorder:
        model(BATCH)
        recorder.step()
    assert set(recorder.census().site) == set(report.units.site)
    assert {site.reason for site in recorder.sites} == {FUSED}


def test_int8_beside_float_parts() -> None:
    """What is not quantised is right."""
    model: Any = nn.Sequential(int8(fused()), nn.Linear(2, 5), nn.ReLU())
    report = harness.scan(model, BATCH)
    assert report.units[report.units.site == "2"].active.tolist() == (model[:2](BATCH) > 0).sum(0).tolist()
    assert sum(report.units.state == "unobserved") == 4


@pytest.mark.parametrize(
    "act",
    [nn.ReLU(), nn.ReLU6(), nn.LeakyReLU(0.0), nn.ELU(), nn.Hardswish(), nn.Sigmoid(), nn.Tanh()],
    ids=lambda act: type(act).__name__,
)
def test_activations_on_quantised_values(act: nn.Module) -> None:
    model = nn.Sequential(
        quantisation.QuantStub(), nn.Conv2d(2, 3, 1), nn.Identity(), act, quantisation.DeQuantStub()
    )
    report = harness.scan(int8(model.eval()), BATCH)
    (site,) = report.plan.unobserved
    assert site.name.split(":")[0] == "3"
    assert "quint8" in site.reason or "quantised" in site.reason


def test_functions_on_quantised_values() -> None:
    class Functions(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            q = torch.quantize_per_tensor(x, 0.1, 0, torch.qint8)
            return F.relu(q).dequantize() + torch.ops.quantized.add_relu(q, q, 0.1, 0).dequantize()

    with warnings.catch_warnings(record=True):
        report = harness.scan(Functions(), BATCH)
    assert report.units.state.tolist() == ["unobserved"]  # one name, one row


def test_a_traced_graph() -> None:
    """FX graph mode calls the kernels by themselves."""
    fx = pytest.importorskip("torch.ao.quantization.quantize_fx", exc_type=ImportError)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(2, 4, 3), nn.Linear(4, 5)

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(self.fc(F.relu(self.conv(x)).mean((2, 3))))

    mapping = quantisation.get_default_qconfig_mapping(ENGINE)
    torch.backends.quantized.engine = ENGINE
    prepared = fx.prepare_fx(Net().eval(), mapping, (BATCH,))
    prepared(BATCH)
    report = harness.scan(fx.convert_fx(prepared), BATCH)
    assert set(report.units.site) == {"conv:relu", "fc:relu"}
    assert {site.reason for site in report.plan.unobserved} == {FUSED}


@pytest.mark.parametrize("make", [nn.LSTM, nn.GRU, nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_recurrent_modules_of_int8_weights(make: Callable[..., nn.Module]) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.fc, self.relu = make(3, 4), nn.Linear(4, 4), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            h = self.rnn(x)
            while isinstance(h, tuple):
                h = h[0]
            return self.relu(self.fc(h))

    torch.backends.quantized.engine = ENGINE
    model = quantisation.quantize_dynamic(Net().eval(), {make, nn.Linear})
    x = torch.randn(2, 5, 3) if make in (nn.LSTM, nn.GRU) else torch.randn(5, 3)
    report = harness.scan(model, x)
    (site,) = report.plan.unobserved
    assert (site.name, site.reason) == ("rnn", "its units live inside a fused kernel")
    assert (report.units.site == "relu").sum() == 4


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_large"])
def test_models_of_torchvision(name: str) -> None:
    """int8 has a row for each call that the float model has, under the names of its fused form."""
    x = torch.randn(2, 3, 32, 32)
    make = getattr(zoo, name)
    plain = make(weights=None, quantize=False).eval()
    fused_model = copy.deepcopy(plain)
    fused_model.fuse_model(is_qat=False)
    counted, both = harness.scan(plain, x), harness.scan(fused_model, x)
    assert sorted(counted.summary.units) == sorted(both.summary.units)
    assert (both.units.n > 0).all()
    report = harness.scan(make(weights=None, quantize=True).eval(), x)
    assert len(report.units) == len(counted.summary)
    assert set(report.units.state) == {"unobserved"}
    assert sum(site.reason == FUSED for site in report.plan.unobserved) >= 15
