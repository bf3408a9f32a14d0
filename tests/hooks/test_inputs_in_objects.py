"""Inputs that come in objects, or are made in the forward: the site behind the first layer is seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import harness


@dataclass
class Batch:
    features: dict[str, Any]


KINDS: dict[str, tuple[Callable[[Tensor], Any], Callable[[Any], Tensor]]] = {
    "tensor": (lambda x: x, lambda d: d),
    "dict": (lambda x: {"x": x}, lambda d: d["x"]),
    "list": (lambda x: [x], lambda d: d[0]),
    "dataclass": (lambda x: Batch({"x": [x]}), lambda d: d.features["x"][0]),
    "namespace": (lambda x: SimpleNamespace(x=x), lambda d: d.x),
    "numpy": (lambda x: x.numpy(), torch.as_tensor),
    "function": (lambda x: lambda: x, lambda d: d()),
    "nothing": (lambda x: None, lambda d: torch.randn(9, 8)),
}
FIRST: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "batch norm": lambda m, x: m.bn(x),
    "layer norm": lambda m, x: m.norm(x),
    "linear": lambda m, x: F.linear(x, m.w, m.b),
    "product": lambda m, x: x @ m.w + m.b,
    "addmm": lambda m, x: torch.addmm(m.b, x, m.w),
    "einsum": lambda m, x: torch.einsum("bi,io->bo", x, m.w) + m.b,
}


class Model(nn.Module):
    def __init__(self, first: str, kind: str) -> None:
        super().__init__()
        self.w, self.b = nn.Parameter(torch.randn(8, 8) * 0.3), nn.Parameter(torch.zeros(8))
        self.bn, self.act, self.head = nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1)
        self.norm = nn.LayerNorm(8)
        self.first, self.open = FIRST[first], KINDS[kind][1]
        with torch.no_grad():
            self.b[:4] = self.bn.bias[:4] = self.norm.bias[:4] = -100.0

    def forward(self, data: Any) -> Tensor:
        return self.head(self.act(self.first(self, self.open(data))))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("first", FIRST)
def test_the_first_site_is_seen(first: str, kind: str) -> None:
    torch.manual_seed(0)
    model = Model(first, kind)
    with harness.Recorder(model, census_every=None) as recorder:
        for _ in range(12):
            model(KINDS[kind][0](torch.randn(9, 8))).square().mean().backward()
            recorder.step()
    census = recorder.census()
    assert census["n"].tolist() == [9 * 12] * 8
    assert (census["state"] == "dead").tolist() == [True] * 4 + [False] * 4
    assert not recorder.sites[0].guessed


def test_weights_that_constants_mask_or_mix_stay_weights() -> None:
    """Basis, mask and noise are no inputs: the layer made of them is that of its weights."""

    class Made(nn.Module):
        basis: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.w, self.head = nn.Parameter(torch.randn(6, 8)), nn.Linear(6, 1)
            self.register_buffer("basis", torch.eye(6))
            self.mask = torch.ones(6, 8)

        def forward(self, x: Tensor) -> Tensor:
            mixed = (self.basis.clone() @ self.w) * self.mask + 0.01 * torch.randn(6, 8)
            return self.head(F.relu(F.linear(x, torch.eye(6) @ mixed)))

    report = harness.scan(Made(), [torch.randn(5, 8)])
    (site,) = report.plan.sites
    assert (site.producers, site.size, site.guessed) == (("w",), 6, False)


class Graph:
    """A batch of its own kind, which iterates over its parts."""

    def __init__(self, x: Tensor) -> None:
        self.x = x

    def to(self, device: torch.device) -> Graph:
        return Graph(self.x.to(device))

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        return iter([("x", self.x)])


@pytest.mark.parametrize(
    "given",
    [lambda x: Graph(x), lambda x: [Graph(x[:4]), Graph(x[4:])], lambda x: [(Graph(x), 1)]],
    ids=["one", "several", "with a target"],
)
def test_batches_that_are_objects(given: Callable[[Tensor], Any]) -> None:
    torch.manual_seed(0)
    model = Model("batch norm", "namespace")
    x = torch.randn(9, 8)
    report = harness.scan(model, given(x))
    assert report.units["n"].tolist() == [9] * 8
    assert report.units["state"].eq("dead").tolist() == [True] * 4 + [False] * 4
    with harness.Recorder(model, probe=given(x), census_every=1) as recorder:
        model(Graph(x)).sum().backward()
        recorder.step()
    assert set(recorder.history()["evidence"]) == {"probe", "stream"}


def test_a_batch_without_tensors_is_refused() -> None:
    with pytest.raises(TypeError, match="an object that holds tensors, but got str"):
        harness.scan(Model("batch norm", "namespace"), ["words"])


class Table(dict[str, Tensor]):
    """A mapping that is indexed by rows, as a TensorDict is."""

    @classmethod
    def __torch_function__(cls, *_: Any) -> Any:
        return NotImplemented

    def __iter__(self) -> Iterator[Any]:
        return iter(range(9))


def test_a_mapping_that_torch_functions_take_is_passed_whole() -> None:
    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = nn.Sequential(nn.Linear(8, 4), nn.ReLU())

        def forward(self, table: Table | None = None, **_: Any) -> Tensor:
            assert isinstance(table, Table)
            return self.module(table["x"])

    report = harness.scan(Reads(), Table(x=torch.randn(9, 8)))
    assert report.units["n"].tolist() == [9] * 4
    assert [site.name for site in report.plan.sites] == ["module.1"]  # no wrapper of torch's
