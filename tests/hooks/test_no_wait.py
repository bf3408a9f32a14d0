"""Nothing but a census asks the device for a value: on a GPU each such question waits for all work before it.

Tensors of the tests are on the CPU, with the sums forced onto the way of other devices; every operation that
would read a value from a device is noted, with the place in our code that asked.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pandas.testing import assert_frame_equal
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

import harness
from harness.graph import origin, provenance, units
from harness.hooks.function_calls import FunctionCalls, ZeroConstants
from harness.hooks.function_modes import ActivationMode, FunctionMode
from harness.kernels.accumulators import Accumulators

READS = {
    "_local_scalar_dense",
    "item",
    "is_nonzero",
    "equal",
    "allclose",
    "nonzero",
    "masked_select",
    "bincount",
}
READS |= {"_unique2", "unique_dim", "unique_consecutive", "repeat_interleave"}
METHODS = ["cpu", "numpy", "tolist", "item", "__bool__", "__int__", "__float__", "__index__", "__array__"]
MADE = Accumulators.__init__
OURS = str(Path(harness.__file__).parent)
#: What calls the model's own functions, and what takes these sums for those of a CPU.
CALLS_THE_MODEL = (
    FunctionCalls.traced.__code__,
    FunctionMode.__torch_function__.__code__,
    ActivationMode.__torch_function__.__code__,
    MADE.__code__,
)
#: Indices of units are small tensors that always lie on the CPU.
ON_THE_CPU = (units.__file__, origin.__file__, provenance.__file__)


def asker() -> str:
    """The place in our code nearest to the top of the stack; "" if there is none."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename.startswith(OURS):
            if frame.f_code in CALLS_THE_MODEL or frame.f_code.co_filename in ON_THE_CPU:
                return ""
            return f"{Path(frame.f_code.co_filename).name}:{frame.f_code.co_name}"
        frame = frame.f_back
    return ""


class Reads(TorchDispatchMode):
    """Notes what reads a value that on a device would lie there."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def note(self, what: str) -> None:
        place = asker()
        if place:
            self.seen.append(f"{what} in {place}")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        indexed = name in ("index", "index_put", "index_put_") and any(
            isinstance(t, Tensor) and t.dtype in (torch.bool, torch.uint8) for t in args[1]
        )
        if name in READS or indexed:
            self.note(name)
        return func(*args, **(kwargs or {}))


@contextmanager
def reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Reads]:
    """What our code reads in the block, by torch operations and by methods of tensors."""
    found = Reads()

    def to(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        given = [*args, kwargs.get("device")]
        if any(isinstance(place, str | torch.device) for place in given):
            found.note("to")
        return move(self, *args, **kwargs)

    move = Tensor.to

    def noting(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def called(self: Tensor, *args: Any, **kwargs: Any) -> Any:
            found.note(name)
            return method(self, *args, **kwargs)

        return called

    with monkeypatch.context() as patched, found:
        for name in METHODS:
            patched.setattr(Tensor, name, noting(name, getattr(Tensor, name)))
        patched.setattr(Tensor, "to", to)
        yield found


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors pass for those of another device, as far as our code looks."""

    def without_arrays(self: Accumulators, *args: Any) -> None:
        MADE(self, *args)
        self.arrays = None

    monkeypatch.setattr(Accumulators, "__init__", without_arrays)
    monkeypatch.setattr(Tensor, "is_cpu", property(lambda self: False))


def layers(activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 8), activation(), nn.Linear(8, 8), activation(), nn.Linear(8, 1))


class Calls(nn.Module):
    """Activations as functions."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.one, self.two, self.function = nn.Linear(6, 8), nn.Linear(8, 1), function

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.function(self.one(x)))


class Constant(Calls):
    """Compares with a zero of its own."""

    def __init__(self) -> None:
        super().__init__(F.relu)
        self.register_buffer("zero", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.two(torch.maximum(self.one(x), self.zero))  # type: ignore[arg-type]


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.norm, self.act, self.head = nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm(self.stem(x.reshape(-1, 3, 6, 6))))
        x = self.act(self.two(self.act(self.one(x))) + x)
        return self.head(x.mean((2, 3)))


class Recomputed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = layers()

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.net, x, use_reentrant=False)  # type: ignore[return-value]


class Autocast(Recomputed):
    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.net(x)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "mlp": layers,
    "prelu": lambda: layers(lambda: nn.PReLU(8)),
    "gelu": lambda: layers(nn.GELU),
    "residual": Residual,
    "F.relu": lambda: Calls(F.relu),
    "clamp": lambda: Calls(lambda z: z.clamp(min=0)),
    "maximum": lambda: Calls(lambda z: torch.maximum(z, torch.zeros_like(z))),
    "maximum of a new zero": lambda: Calls(lambda z: torch.maximum(torch.zeros((), device=z.device), z)),
    "maximum of a buffer": Constant,
    "checkpointed": Recomputed,
    "autocast": Autocast,
}


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    model(torch.randn(5, 108 if isinstance(model, Residual) else 6)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize("name", MODELS)
def test_no_value_is_asked_for_between_censuses(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = MODELS[name]()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with harness.Recorder(model, optimizer=optimizer, census_every=None) as recorder:
        with reads(monkeypatch) as found:
            step(model, optimizer)
            recorder.step()
        once = {f"{what} in function_calls.py:is_zero" for what in ("__bool__", "_local_scalar_dense")}
        assert set(found.seen) == (once if name == "maximum of a buffer" else set())
        with reads(monkeypatch) as found:
            for _ in range(40):  # past the first optimizer steps, in which more is watched
                step(model, optimizer)
                recorder.step()
        assert set(found.seen) == set()
        with reads(monkeypatch) as found:
            census = recorder.census()
        assert found.seen  # a census does ask, and asking is noticed
    assert (census.n > 0).all()
    assert census.grad_norm.notna().any() or name == "prelu"


def zero_behind(model: nn.Module) -> None:
    for p in model.parameters():
        if p.grad is not None:
            p.grad.data.zero_()


@pytest.mark.parametrize("steps", [1, 7, 40, 61])
def test_gradients_zeroed_behind_torch_are_found_out_at_a_census(steps: int) -> None:
    model = layers()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with harness.Recorder(model, optimizer=optimizer, census_every=None) as recorder:
        for window in range(3):
            used = 0.0
            for _ in range(steps):
                model(torch.randn(5, 6)).square().mean().backward()
                first = model[0]
                assert isinstance(first.weight, Tensor)
                assert isinstance(first.bias, Tensor)
                assert first.weight.grad is not None
                assert first.bias.grad is not None
                used = float(first.weight.grad.square().sum() + first.bias.grad.square().sum()) ** 0.5
                optimizer.step()
                zero_behind(model)
                recorder.step()
            census = recorder.census()
            norms = census[census.site == "1"].grad_norm
            if window or norms.notna().any():  # nothing is known in the first, rather than something wrong
                assert float(norms.pow(2).sum()) ** 0.5 == pytest.approx(used, rel=1e-4)


def test_a_zero_is_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    zeros = ZeroConstants()
    buffer, ones = torch.zeros(2), torch.ones(2)
    with reads(monkeypatch) as found:
        assert zeros.is_zero(buffer)
        assert not zeros.is_zero(ones)
    assert found.seen
    with reads(monkeypatch) as found:
        assert zeros.is_zero(buffer)
        assert not zeros.is_zero(ones)
    assert not found.seen
    buffer.add_(1)
    assert not zeros.is_zero(buffer)  # the same tensor, written to


@pytest.mark.parametrize("name", MODELS)
def test_plain_torch_counts_what_the_loops_count(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for way in ("torch", "loops"):
        if way == "loops":
            monkeypatch.undo()
        torch.manual_seed(0)
        model = MODELS[name]()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        with harness.Recorder(model, optimizer=optimizer, census_every=3) as recorder:
            for _ in range(6):
                step(model, optimizer)
                recorder.step()
        found.append(recorder.history())
    assert_frame_equal(*found, rtol=1e-4, atol=1e-6)
