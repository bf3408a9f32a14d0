"""Compiled models: observed eagerly while a Recorder is attached, compiled again afterwards."""

from __future__ import annotations

import shutil
import warnings
from contextlib import nullcontext
from typing import Any

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._dynamo.utils import counters

import harness


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.act, self.two, self.head = nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.Linear(4, 2)
        with torch.no_grad():
            self.one.bias[2] = -100.0  # dead
            self.two.bias[1] = -100.0

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.two(self.act(self.one(x)))))


@pytest.mark.parametrize("fullgraph", [False, True])
@pytest.mark.parametrize("attached", ["before", "after", "to the compiled"])
def test_a_compiled_model_is_counted_as_the_plain_one(attached: str, fullgraph: bool) -> None:
    torch.manual_seed(0)
    model = Net()
    batches = [torch.randn(n, 6) for n in (8, 3, 8)]
    calls = []

    def backend(graph: Any, inputs: Any) -> Any:  # what dynamo hands over runs as it is
        def run(*args: Any) -> Any:
            calls.append(len(args))
            return graph.forward(*args)

        return run

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = torch.compile(model, backend=backend, fullgraph=fullgraph)
        if attached != "before":
            compiled(batches[0])
            assert len(calls) == 1
        watched = compiled if attached == "to the compiled" else model
        recorder = harness.Recorder(watched, census_every=None)  # type: ignore[arg-type]
        with recorder:
            for x in batches:
                compiled(x).sum().backward()
        before = len(calls)
        compiled(batches[0])
        assert len(calls) > before  # compiled again
    units = recorder.census()
    assert [site.name for site in recorder.sites] == ["act", ":relu"]
    assert set(units["n"]) == {19}
    z1 = torch.cat([model.one(x) for x in batches])
    z2 = model.two(z1.relu())
    assert units["active"].tolist() == [*(z1 > 0).sum(0).tolist(), *(z2 > 0).sum(0).tolist()]
    assert units["state"].tolist()[2] == "dead"


def train(
    model: Any, call: Any, sizes: tuple[int, ...], census_every: int | None = 2
) -> tuple[Any, list[Tensor]]:
    """History and losses of a training under a Recorder; what is called is `call`."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    generator = torch.Generator().manual_seed(1)
    losses = []
    with harness.Recorder(model, optimizer=optimizer, census_every=2) as recorder:
        for size in sizes:
            loss = call(torch.randn(size, 6, generator=generator)).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            recorder.step()
            losses.append(loss.detach())
    return recorder.history(), losses


def compiler_or_skip(backend: str) -> None:
    if backend == "inductor" and not any(map(shutil.which, ("g++", "clang++", "c++"))):
        pytest.skip("inductor needs a C++ compiler, and there is none")


BACKENDS = ["eager", "aot_eager", "inductor"]


@pytest.mark.parametrize("warm", [False, True], ids=["fresh", "compiled before"])
@pytest.mark.parametrize(
    ("backend", "dynamic"),
    [("eager", None), ("eager", True), ("aot_eager", None), ("aot_eager", True), ("inductor", None)],
)
def test_under_observation_a_compiled_model_is_the_eager_one_bit_for_bit(
    backend: str, dynamic: bool | None, warm: bool
) -> None:
    """Censuses, losses and parameters; batches of any size, nothing is compiled meanwhile."""
    compiler_or_skip(backend)
    torch._dynamo.reset()
    sizes = (8, 3, 8, 1, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        eager = Net()
        want, true_losses = train(eager, eager, sizes)
        torch.manual_seed(0)
        model = Net()
        compiled: Any = torch.compile(model, backend=backend, dynamic=dynamic)
        if warm:
            with torch.no_grad():
                compiled(torch.randn(8, 6))
        got, losses = train(model, compiled, sizes)
    pd.testing.assert_frame_equal(got, want, check_exact=True)
    assert all(torch.equal(a, b) for a, b in zip(losses, true_losses, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), eager.parameters(), strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
def test_after_observation_the_compiled_code_runs_again(backend: str) -> None:
    """No recompilation: what was compiled before is used as it is."""
    compiler_or_skip(backend)
    torch._dynamo.reset()
    torch.manual_seed(0)
    model, batch = Net(), torch.randn(8, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled: Any = torch.compile(model, backend=backend, fullgraph=True, dynamic=False)
        before = compiled(batch)
        frames = dict(counters["frames"])
        with harness.Recorder(model, census_every=None) as recorder:
            during = compiled(batch)
        with torch._dynamo.config.patch(error_on_recompile=True):
            after = compiled(batch)
    assert dict(counters["frames"]) == frames
    assert torch.equal(before, after)
    assert torch.equal(during, model(batch))
    torch.testing.assert_close(before, during)
    assert set(recorder.census()["n"]) == {8}


def test_marked_dynamic_batches_are_counted() -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)
    model = Net()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled: Any = torch.compile(model, backend="eager", fullgraph=True)
        for watched in (False, True):
            recorder = harness.Recorder(model, census_every=None)
            with recorder if watched else nullcontext():
                for size in (4, 7, 9):
                    batch = torch.randn(size, 6)
                    torch._dynamo.mark_dynamic(batch, 0)
                    compiled(batch)
    assert set(recorder.census()["n"]) == {20}


def counted() -> tuple[Net, Any, list[int]]:
    """A model, the same compiled, and what gets one entry whenever something is compiled."""
    torch._dynamo.reset()
    calls: list[int] = []

    def backend(graph: Any, inputs: Any) -> Any:
        calls.append(1)
        return graph.forward

    model = Net()
    return model, torch.compile(model, backend=backend), calls


def test_an_error_under_observation_gives_the_compiled_code_back() -> None:
    model, compiled, calls = counted()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(RuntimeError), harness.Recorder(model, census_every=None):
            compiled(torch.randn(4, 99))
        assert not calls
        compiled(torch.randn(4, 6))
    assert calls


def test_recorders_that_leave_in_any_order_give_the_compiled_code_back() -> None:
    """The last to leave does, and until then compiled models run eagerly."""
    model, compiled, calls = counted()
    first, second = harness.Recorder(model, census_every=None), harness.Recorder(model, census_every=None)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            first.__enter__()
            second.__enter__()
            compiled(torch.randn(3, 6))
            first.__exit__(None, None, None)
            compiled(torch.randn(4, 6))
            assert not calls
            second.__exit__(None, None, None)
            compiled(torch.randn(5, 6))
            assert calls
        assert set(second.census()["n"]) == {7}
    finally:
        first.detach()
        second.detach()


class Helped(nn.Module):
    """An eager model that calls a compiled function of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 8), nn.Linear(8, 8)
        self.squared = torch.compile(lambda x: F.relu(x).square(), backend="eager")

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.two(self.squared(self.one(x))))


def test_a_compiled_function_that_was_counted_is_not_said_to_be_missed() -> None:
    """Its backend calls torch's functions, which are seen as those of an eager model."""
    model = Helped()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")  # the compiler itself may warn
        with harness.Recorder(model, census_every=12) as recorder:
            for _ in range(24):
                model(torch.randn(8, 4)).mean().backward()
                recorder.step()
    assert not any("not counted" in str(one.message) for one in said)
    assert recorder.history().groupby(["step", "site"]).n.max().tolist() == [96] * 4
