"""An attached Recorder never changes what a forward or backward raises or returns."""

from __future__ import annotations

import copy
import threading
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint

import harness

TORCH: Any = torch  # some of what is odd has no stub
Run = Callable[[nn.Module, Tensor], Any]


class Modules(nn.Module):
    """One activation module between two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.act, self.two = nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.act(self.one(x)))


class Functions(nn.Module):
    """The same with a function."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(F.relu(self.one(x)))


class Between(nn.Module):
    """An activation on whatever `change` makes of a layer's output."""

    def __init__(
        self, change: Callable[[Tensor], Any], back: Callable[[Any], Tensor], function: bool
    ) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 6), nn.Linear(6, 3)
        self.change, self.back, self.act = change, back, F.relu if function else nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        z = self.change(self.one(x))
        return self.two(self.back(self.act(z)))


class Scalars(nn.Module):
    """Ordinary code with parameters of no axis."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 6), nn.Linear(6, 3)
        self.gate, self.log_sigma = nn.Parameter(torch.tensor(0.3)), nn.Parameter(torch.tensor(-1.0))

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.one(x)) * torch.tanh(self.gate)
        return self.two(h) * F.softplus(self.log_sigma) + self.gate.clamp(min=0)


class NoGradient(torch.autograd.Function):
    """Its backward returns None."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        return z * 2

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return None


class Wrapped(torch.Tensor):
    """A subclass of Tensor."""


def backward(model: nn.Module, x: Tensor) -> Any:
    out = model(x)
    out.square().sum().backward()
    return out, *(p.grad for p in model.parameters())


def fake(model: nn.Module, x: Tensor) -> Any:
    model(x)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        return tuple(model(mode.from_tensor(x)).shape)


def double(model: nn.Module, x: Tensor) -> Any:
    x = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(model(x).square().sum(), x, create_graph=True)
    g.square().sum().backward()
    return [p.grad for p in model.parameters()]


def dual(model: nn.Module, x: Tensor) -> Any:
    with forward_ad.dual_level():
        out = model(forward_ad.make_dual(x, torch.ones_like(x)))
        return forward_ad.unpack_dual(out).tangent


def trace(model: nn.Module, x: Tensor) -> Any:
    traced: Any = torch.jit.trace(model, x, check_trace=False)
    return traced(x)


def gradcheck(model: nn.Module, x: Tensor) -> Any:
    wide = model.double()
    return torch.autograd.gradcheck(wide, (x.double().requires_grad_(),))


def checkpointed(model: nn.Module, x: Tensor) -> Any:
    out: Any = checkpoint(model, x.clone().requires_grad_(), use_reentrant=True)
    out.sum().backward()
    return [p.grad for p in model.parameters()]


def anomaly(model: nn.Module, x: Tensor) -> Any:
    with torch.autograd.detect_anomaly(check_nan=False):
        return backward(model, x)


def copied(model: nn.Module, x: Tensor) -> Any:
    return backward(copy.deepcopy(model), x)


def wrong_input(model: nn.Module, x: Tensor) -> Any:
    return model(x[:, :2])


def threads(model: nn.Module, x: Tensor) -> Any:
    found: list[Any] = [None] * 4

    def work(place: int) -> None:
        for _ in range(12):
            found[place] = model(x + place)

    workers = [threading.Thread(target=work, args=(place,)) for place in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return found


RUNS: dict[str, Run] = {
    "backward": backward,
    "fake tensors": fake,
    "double backward": double,
    "forward mode": dual,
    "jvp": lambda m, x: torch.func.jvp(m, (x,), (torch.ones_like(x),)),
    "jacrev": lambda m, x: torch.func.jacrev(m)(x),
    "vmap": lambda m, x: torch.func.vmap(m)(x),
    "hessian": lambda m, x: torch.func.hessian(lambda v: m(v).sum())(x),
    "jit trace": trace,
    "export": lambda m, x: torch.export.export(m, (x,)).module()(x),
    "fx": lambda m, x: torch.fx.symbolic_trace(m)(x),
    "gradcheck": gradcheck,
    "reentrant checkpoint": checkpointed,
    "anomaly": anomaly,
    "deep copy": copied,
    "no rows": lambda m, x: backward(m, x[:0]),
    "one row": lambda m, x: backward(m, x[0]),
    "subclass": lambda m, x: m(x.as_subclass(Wrapped)).as_subclass(Tensor),
    "inference": lambda m, x: torch.inference_mode()(m)(x),
    "bfloat16": lambda m, x: backward(m.bfloat16(), x.bfloat16()),
    "meta": lambda m, x: tuple(m.to("meta")(x.to("meta")).shape),
    "wrong input": wrong_input,
    "threads": threads,
}
CHANGES: dict[str, tuple[Callable[[Tensor], Any], Callable[[Any], Tensor]]] = {
    "negated view": (TORCH._neg_view, lambda z: z),
    "lazy zeros": (lambda z: TORCH._efficientzerotensor(z.shape), lambda z: z + 0.0),
    "nested": (
        lambda z: torch.nested.nested_tensor([z[:2], z[2:]]),
        lambda z: torch.cat(list(z.unbind())),
    ),
    "sparse": (lambda z: z.detach().to_sparse(), lambda z: z.to_dense()),
    "quantised": (
        lambda z: torch.quantize_per_tensor(z.detach(), 0.1, 10, torch.quint8),
        lambda z: z.dequantize(),
    ),
    "integers": (lambda z: z.detach().long(), lambda z: z.float()),
    "no axis": (lambda z: z.sum(), lambda z: z.expand(5, 6)),
    "no units": (lambda z: z[:, :0], lambda z: z.sum(1, keepdim=True).expand(5, 6)),
    "no gradient": (NoGradient.apply, lambda z: z),
    "expanded": (lambda z: z[:1].expand(5, 6), lambda z: z),
    "numpy": (lambda z: torch.from_numpy(z.detach().numpy().T).T, lambda z: z),
    "freed": (lambda z: z.clone(), lambda z: z),
    "not contiguous": (lambda z: z.t().contiguous().t(), lambda z: z),
}


def outcome(run: Run, model: nn.Module, x: Tensor, *, kind: str) -> Any:
    """What comes of it: the result, or the error; observed as `kind` says."""
    torch.manual_seed(1)
    with warnings.catch_warnings(), ExitStack() as stack:
        warnings.simplefilter("ignore")
        if kind == "stream":
            stack.enter_context(harness.Recorder(model, census_every=None, observe="all"))
        elif kind in ("probe", "evidence"):
            optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
            options: dict[str, Any] = {"evidence": True} if kind == "evidence" else {"probe": x}
            stack.enter_context(harness.Recorder(model, optimizer=optimizer, census_every=None, **options))
        try:
            return "value", run(model, x)
        except Exception as error:
            return type(error), str(error).splitlines()[:1]


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and torch.equal(a, b)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def check(make: Callable[[], nn.Module], run: Run, kind: str) -> None:
    results = []
    for observed in ("", kind):
        torch.manual_seed(0)
        model = make()
        results.append(outcome(run, model, torch.randn(5, 4), kind=observed))
    assert same(*results), results
    assert not torch.overrides._get_current_function_mode_stack()


MOVED = ("bfloat16", "gradcheck", "meta")  # the model is converted; a probe's batch stays as it was given
KINDS = [(name, kind) for name in RUNS for kind in ("stream", "evidence")]
KINDS += [(name, "probe") for name in RUNS if name not in MOVED]


@pytest.mark.parametrize("make", [Modules, Functions])
@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_odd_runs(name: str, kind: str, make: Callable[[], nn.Module]) -> None:
    check(make, RUNS[name], kind)


@pytest.mark.parametrize("kind", ["stream", "probe"])
@pytest.mark.parametrize("function", [False, True])
@pytest.mark.parametrize("name", CHANGES)
def test_odd_tensors(name: str, function: bool, kind: str) -> None:
    def forwards(model: nn.Module, x: Tensor) -> Any:
        outs = [model(x + i) for i in range(11)]  # traced ones, and ones by the fast path
        if outs[-1].requires_grad:
            outs[-1].sum().backward()
        return [out.detach() for out in outs], [p.grad for p in model.parameters()]

    check(lambda: Between(*CHANGES[name], function), forwards, kind)


@pytest.mark.parametrize("kind", ["stream", "probe", "evidence"])
def test_activations_of_scalars(kind: str) -> None:
    check(Scalars, backward, kind)


def test_scalars_are_one_unit() -> None:
    torch.manual_seed(0)
    units = harness.scan(Scalars(), torch.randn(5, 4)).units
    sizes = units.groupby("site").unit.count().to_dict()
    assert sizes[":relu"] == 6
    assert sizes[":tanh"] == sizes[":softplus"] == 1


def test_a_negated_view_is_counted_with_its_sign() -> None:
    torch.manual_seed(0)
    model = Between(TORCH._neg_view, lambda z: z, function=False)
    x = torch.randn(50, 4)
    units = harness.scan(model, x).units
    assert units.site.unique().tolist() == ["act"]
    assert units.active.tolist() == (-model.one(x) > 0).sum(0).tolist()


def test_threads_lose_no_input() -> None:
    """Four threads, one model, one recorder."""
    for make in (Modules, Functions):
        torch.manual_seed(0)
        model = make()
        with harness.Recorder(model, census_every=None) as recorder:
            threads(model, torch.randn(5, 4))
            census = recorder.census()
        assert set(census.n) == {4 * 12 * 5}, make
