"""aten's operators, called by a model itself or by an exported program that is a part of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import harness

aten: Any = torch.ops.aten
X = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
ZERO = torch.zeros(())

#: Each call beside the module that counts the same.
CALLS: dict[str, tuple[Callable[[Tensor], Tensor], nn.Module]] = {
    "relu": (aten.relu.default, nn.ReLU()),
    "relu packet": (aten.relu, nn.ReLU()),
    "relu_": (lambda z: aten.relu_.default(z.clone()), nn.ReLU()),
    "gelu": (aten.gelu.default, nn.GELU()),
    "gelu tanh": (lambda z: aten.gelu.default(z, approximate="tanh"), nn.GELU("tanh")),
    "silu": (aten.silu.default, nn.SiLU()),
    "hardswish": (aten.hardswish.default, nn.Hardswish()),
    "leaky_relu": (lambda z: aten.leaky_relu.default(z, 0.0), nn.ReLU()),
    "clamp_min": (lambda z: aten.clamp_min.default(z, 0), nn.ReLU()),
    "clamp_min tensor": (lambda z: aten.clamp_min.Tensor(z, ZERO), nn.ReLU()),
    "clamp": (lambda z: aten.clamp.default(z, 0, 1), nn.Hardtanh(0, 1)),
    "maximum": (lambda z: aten.maximum.default(z, ZERO), nn.ReLU()),
    "threshold": (lambda z: aten.threshold.default(z, 0.5, 0.0), nn.Threshold(0.5, 0.0)),
    "elu": (aten.elu.default, nn.ELU()),
    "hardtanh": (lambda z: aten.hardtanh.default(z, 0.0, 6.0), nn.ReLU6()),
    "softplus": (aten.softplus.default, nn.Softplus()),
    "mish": (aten.mish.default, nn.Mish()),
    "sigmoid": (aten.sigmoid.default, nn.Sigmoid()),
    "hardshrink": (aten.hardshrink.default, nn.Hardshrink()),
}
OUT = {name: (getattr(aten, name).out, module) for name, (_, module) in CALLS.items() if name.isalpha()}
OUT = {name: OUT[name] for name in ("relu", "gelu", "silu", "hardswish", "softplus", "mish", "sigmoid")}


class Net(nn.Module):
    """Two layers around a call; unit 0 is dead."""

    def __init__(self, call: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.head = nn.Linear(3, 8), nn.Linear(8, 1)
        self.call = call
        nn.init.constant_(self.fc.bias[:1].detach(), -900.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.call(self.fc(x)))


def counts(model: nn.Module, *, train: bool) -> tuple[list[int], set[int], list[str]]:
    """Open gates, n and states of the only site."""
    if not train:
        rows = harness.scan(model, X).units
    else:
        with harness.Recorder(model, census_every=None) as recorder:
            for _ in range(20):
                model(X).sum().backward()
                recorder.step()
            rows = recorder.census()
    assert rows.site.nunique() == 1
    return rows.active.tolist(), set(rows.n), rows.state.tolist()


@pytest.mark.parametrize("train", [False, True], ids=["scan", "train"])
@pytest.mark.parametrize("name", CALLS)
def test_an_operator_counts_like_its_module(name: str, train: bool) -> None:
    call, module = CALLS[name]
    found, expected = counts(Net(call), train=train), counts(Net(module), train=train)
    assert found == expected
    assert found[1] == {1280 if train else 64}
    if name != "hardshrink":
        assert found[0][0] == 0


@pytest.mark.parametrize("name", OUT)
def test_operators_with_out(name: str) -> None:
    call, module = OUT[name]

    def into(z: Tensor) -> Tensor:
        return call(z, out=torch.empty_like(z))

    assert counts(Net(into), train=False) == counts(Net(module), train=False)


EXPORTED: dict[str, nn.Module] = {type(module).__name__: module for _, module in CALLS.values()}
EXPORTED |= {"LeakyReLU": nn.LeakyReLU(), "SELU": nn.SELU(), "PReLU": nn.PReLU(8)}


@pytest.mark.parametrize("train", [False, True], ids=["scan", "train"])
@pytest.mark.parametrize("name", EXPORTED)
def test_an_exported_part(name: str, train: bool) -> None:
    torch.manual_seed(0)
    inner: Any = nn.Sequential(nn.Linear(3, 8), EXPORTED[name])
    nn.init.constant_(inner[0].bias[:1].detach(), -900.0)
    part: Any = torch.export.export(inner, (X,)).module()
    head = nn.Linear(8, 1)
    found = counts(Whole(part, head), train=train)
    assert found[:2] == counts(Whole(inner, head), train=train)[:2]
    assert found[1] == {1280 if train else 64}


class Whole(nn.Module):
    """A part and a head."""

    def __init__(self, part: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.part, self.head = part, head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.part(x))


def test_two_exported_parts_in_a_larger_model() -> None:
    """With a convolution and a shape that changes behind it."""
    torch.manual_seed(0)
    image = torch.randn(4, 2, 8, 8)
    convolve = nn.Sequential(nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5), nn.ReLU6(), nn.Conv2d(5, 3, 3), nn.SiLU())
    dense = nn.Sequential(nn.Flatten(), nn.Linear(48, 7), nn.Hardswish())
    convolve.eval()
    parts: list[Any] = [
        torch.export.export(convolve, (image,)).module(),
        torch.export.export(dense, (convolve(image).detach(),)).module(),
    ]
    plain = harness.scan(nn.Sequential(convolve, dense, nn.Linear(7, 6), nn.ReLU()), image)
    torch.manual_seed(0)
    report = harness.scan(nn.Sequential(*parts, nn.Linear(7, 6), nn.ReLU()), image)
    assert report.units.n.tolist() == plain.units.n.tolist()
    assert report.units[:-6].active.tolist() == plain.units[:-6].active.tolist()
    assert report.summary.units.tolist() == [5, 3, 7, 6]
