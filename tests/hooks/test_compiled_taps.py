"""Compiled models stay compiled: their units are counted in the graph, as the eager model's are."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from compiled_nets import MLP, MODELS, STEPS, Broken, assert_alike, eager, train
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

import harness

pytestmark = pytest.mark.usefixtures("fresh_compiler")


@pytest.mark.parametrize("name", MODELS)
def test_units_of_compiled_code_are_counted_in_its_graph(name: str) -> None:
    counter = CompileCounterWithBackend("eager")
    want, plain, _ = train(MODELS[name], eager)
    got, model, recorder = train(MODELS[name], lambda m: torch.compile(m, backend=counter, fullgraph=True))
    assert counter.frame_count == 1  # compiled once, and no break of ours
    assert_alike(got, want)
    assert "in the graph" in str(recorder.plan)
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("module and function", {}),
        ("module and function", {"mode": "reduce-overhead"}),
        ("residual", {"dynamic": True}),
    ],
    ids=str,
)
def test_with_inductor(name: str, options: dict[str, Any]) -> None:
    if not any(map(shutil.which, ("g++", "clang++", "c++"))):
        pytest.skip("inductor needs a C++ compiler, and there is none")
    want, _, _ = train(MODELS[name], eager, sizes=(16, 8))
    got, _, recorder = train(
        MODELS[name], lambda m: torch.compile(m, fullgraph=True, **options), sizes=(16, 8)
    )
    assert_alike(got, want)
    assert recorder.plan.compiled.startswith("counted in the graph")


class Blocks(nn.Module):
    """Two blocks that call their activations twice, as modules and as functions."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.act = nn.Linear(6, 6), nn.Linear(6, 6), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(x + self.act(self.two(self.act(self.one(x)))) - 1)

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Blocks.Block(), Blocks.Block())

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


def test_blocks_that_are_compiled_one_by_one() -> None:
    counter = CompileCounterWithBackend("eager")

    def compiled(model: nn.Module) -> nn.Module:
        for block in model.get_submodule("blocks").children():
            block.compile(backend=counter)
        return model

    want, _, _ = train(Blocks, eager)
    got, _, recorder = train(Blocks, compiled)
    assert counter.frame_count <= 4
    assert_alike(got, want)
    assert "in the graph" in str(recorder.plan)


class BrokenBlocks(MLP):
    """Python stands between two graphs, which call their activations as modules."""

    def forward(self, x: Tensor) -> Tensor:
        z = self.act(self.one(x))
        torch._dynamo.graph_break()
        return self.head(F.normalize(self.two(z)))


def test_modules_are_counted_on_both_sides_of_a_graph_break() -> None:
    counter = CompileCounterWithBackend("eager")
    want, _, _ = train(BrokenBlocks, eager)
    got, _, _ = train(BrokenBlocks, lambda m: torch.compile(m, backend=counter))
    assert counter.frame_count == 2
    assert_alike(got, want)


def test_functions_in_a_broken_graph_are_counted_eagerly() -> None:
    """Around a break, torch's compiler takes what a function mode is asked for something else."""
    counter = CompileCounterWithBackend("eager")
    want, _, _ = train(Broken, eager)
    got, _, recorder = train(Broken, lambda m: torch.compile(m, backend=counter))
    assert counter.frame_count == 0
    pd.testing.assert_frame_equal(got, want)
    assert "not seen to be one graph" in recorder.plan.compiled


def in_place(model: nn.Module) -> nn.Module:
    model.compile(backend="aot_eager")
    return model


def by_parts(model: nn.Module) -> nn.Module:
    for child in model.children():
        child.compile(backend="aot_eager")
    return model


def before_it_is_watched(model: nn.Module) -> Any:
    compiled: Any = torch.compile(model, backend="aot_eager")
    with torch.no_grad():
        compiled(torch.zeros(16, 6))
    return compiled


@pytest.mark.parametrize("how", [in_place, by_parts, before_it_is_watched])
def test_however_it_is_compiled(how: Callable[[nn.Module], Any]) -> None:
    want, _, _ = train(MLP, eager)
    got, _, _ = train(MLP, how)
    assert_alike(got, want)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_what_torch_compile_returned_may_be_watched(backend: str) -> None:
    want, _, _ = train(MLP, eager)
    torch.manual_seed(0)
    compiled: Any = torch.compile(MLP(), backend=backend)
    optimizer = torch.optim.SGD(compiled.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(1)
    with harness.Recorder(compiled, optimizer=optimizer, census_every=7) as recorder:
        for _ in range(STEPS):
            compiled(torch.randn(16, 6, generator=generator)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            recorder.step()
    assert_alike(recorder.history(), want)
    assert recorder.plan.compiled == "counted in the graph"


def test_a_whole_step_is_compiled() -> None:
    want, _, _ = train(MLP, eager)
    torch.manual_seed(0)
    model = MLP()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    @torch.compile(backend="aot_eager")
    def step(x: Tensor) -> None:
        model(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    generator = torch.Generator().manual_seed(1)
    with harness.watch(model, optimizer, census_every=7) as recorder:
        for _ in range(STEPS - 1):
            step(torch.randn(16, 6, generator=generator))
        with pytest.warns(UserWarning, match="not counted in one forward"):  # by the census
            step(torch.randn(16, 6, generator=generator))
    assert recorder.steps == STEPS
    got = recorder.history()
    module = want["site"] == "act"
    assert_alike(got[module], want[module])
    # That a function is compiled which calls the model cannot be seen before: one forward's calls are lost.
    assert got["n"][~module].tolist() == [7 * 16] * 4 + [6 * 16] * 4
    assert recorder.plan.compiled == "counted in the graph"


def test_what_does_not_count_does_not_count_in_the_graph() -> None:
    """A validation in evaluation mode in between, and batches of several sizes."""

    def validate(model: nn.Module, call: Any, step: int) -> None:
        model.eval()
        with torch.no_grad():
            call(torch.ones(3, 6))
        model.train()

    sizes = (8, 3, 8, 5)
    want, _, _ = train(MLP, eager, sizes, validate)
    got, _, _ = train(MLP, lambda m: torch.compile(m, backend="aot_eager"), sizes, validate)
    assert_alike(got, want)


def test_under_autocast() -> None:
    want, _, _ = train(MLP, eager, autocast=True)
    got, _, _ = train(MLP, lambda m: torch.compile(m, backend="aot_eager", fullgraph=True), autocast=True)
    assert_alike(got, want)
