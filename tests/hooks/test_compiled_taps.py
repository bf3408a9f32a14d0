"""Compiled models stay compiled: their units are counted in the graph, as the eager model's are."""

from __future__ import annotations

import copy
import gc
import shutil
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

import harness

if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 13):
    pytest.skip("models run eagerly while they are watched, before torch 2.13", allow_module_level=True)

STEPS = 14
COUNTED = ["step", "unit", "n", "active", "silent_for", "non_finite"]
MEASURED = ["mean", "std", "max", "rate", "grad_rms", "grad_norm"]


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings(
            "ignore",
            message=".*grad attribute of a Tensor.*|.*record_function.*|.*online softmax.*|.*TensorFloat32.*",
        )
        yield
    torch.compiler.reset()


class MLP(nn.Module):
    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.one, self.act, self.two, self.head = (
            nn.Linear(6, 5),
            nn.ReLU(inplace),
            nn.Linear(5, 4),
            nn.Linear(4, 2),
        )
        with torch.no_grad():
            self.one.bias[2] = self.two.bias[1] = -100.0  # dead

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.two(self.act(self.one(x)))))


class Broken(MLP):
    """Python stands between the two halves."""

    def forward(self, x: Tensor) -> Tensor:
        z = self.two(self.act(self.one(x)))
        torch._dynamo.graph_break()
        return self.head(F.relu(z))


class Shared(nn.Module):
    """One module in place for four layers of equal width."""

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.act = nn.ModuleList(nn.Linear(6, 6) for _ in range(4)), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = self.act(layer(x))
        return x


class Written(nn.Module):
    """What is written in place is read again."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.act = nn.Linear(6, 6), nn.Linear(6, 6), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        z = self.a(x)
        self.act(z)  # its result is not used
        y = self.b(z)
        y.relu_()
        w = self.a(y) + z
        return F.relu(w, True) + w


class Spelled(nn.Module):
    """Functions and methods, with arguments by place and by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(6))

    def forward(self, x: Tensor) -> Tensor:
        a, b, c, d, e, f = self.layers
        x = torch.relu(a(x))
        x = b(x).clamp(min=0)
        x = F.leaky_relu(input=c(x), negative_slope=0.1)
        x = F.gelu(d(x), approximate="tanh")
        x = torch.sigmoid(e(x)).clamp(max=0.9)
        return f(x).relu().sum(-1)


class Cell(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.x, self.h = nn.Linear(6, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), 8)
        for _ in range(4):
            h = torch.relu(self.x(x) + self.h(h))
        return h


class Residual(nn.Module):
    """Convolutions, batch norm, a block that calls one ReLU twice."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
            self.n, self.m, self.relu = nn.BatchNorm2d(4), nn.BatchNorm2d(4), nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            y = self.m(self.b(self.relu(self.n(self.a(x)))))
            y += x
            return self.relu(y)

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.blocks = nn.Conv2d(1, 4, 3), nn.Sequential(self.Block())
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x.view(-1, 1, 2, 3).repeat(1, 1, 3, 2)
        return self.head(self.blocks(F.relu(self.stem(x))).mean((2, 3)))


def transformer() -> nn.Module:
    layer = nn.TransformerEncoderLayer(6, 2, 12, dropout=0.0, batch_first=True)
    return nn.Sequential(nn.Unflatten(1, (1, 6)), nn.TransformerEncoder(layer, 2, enable_nested_tensor=False))


def sequential() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "module and function": MLP,
    "in place": partial(MLP, True),
    "sequential": sequential,
    "shared": Shared,
    "written": Written,
    "spelled": Spelled,
    "cell": Cell,
    "residual": Residual,
    "transformer": transformer,
}


def train(
    make: Callable[[], nn.Module],
    compile: Callable[[nn.Module], Callable[[Tensor], Tensor]],
    sizes: tuple[int, ...] = (16,),
    between: Callable[[nn.Module, Any, int], None] | None = None,
    autocast: bool = False,
    **options: Any,
) -> tuple[pd.DataFrame, nn.Module, harness.Recorder]:
    """History, model and recorder of a training; `compile` makes what is called of the model."""
    torch.manual_seed(0)
    model = make()
    call = compile(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(1)
    with harness.Recorder(model, optimizer=optimizer, census_every=7, **options) as recorder:
        for step in range(STEPS):
            if between is not None:
                between(model, call, step)
            x = torch.randn(sizes[step % len(sizes)], 6, generator=generator)
            with torch.autocast("cpu", dtype=torch.bfloat16) if autocast else nullcontext():
                loss = call(x).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            recorder.step()
    return recorder.history(), model, recorder


def assert_alike(got: pd.DataFrame, want: pd.DataFrame, unknown: tuple[str, ...] = ()) -> None:
    """Counts are equal, the rest within what two compilations of a float32 model differ by.

    `unknown`: sites whose gradients are not known in compiled code.
    """
    assert got["site"].tolist() == want["site"].tolist()
    pd.testing.assert_frame_equal(got[COUNTED], want[COUNTED])
    assert got["state"].tolist() == want["state"].tolist()
    for column in MEASURED:
        rows = ~want["site"].isin(unknown) if column == "grad_rms" else slice(None)
        np.testing.assert_allclose(
            got[column][rows], want[column][rows], rtol=1e-4, atol=1e-6, err_msg=column
        )


def eager(model: nn.Module) -> nn.Module:
    return model


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


class UsedTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        z = self.a(x)
        return F.relu(self.b(z)) + F.silu(z) + z


def test_a_gradient_that_goes_past_the_activation_is_not_known() -> None:
    """Compiled code sees what comes through the activation; half of ∂L/∂z would be a wrong number."""
    want, _, _ = train(UsedTwice, eager)
    with pytest.warns(UserWarning, match=":silu: grad_rms is not known in compiled code"):
        got, _, _ = train(UsedTwice, lambda m: torch.compile(m, backend="aot_eager"))
    assert_alike(got, want, unknown=(":silu",))


class Branching(MLP):
    """From a certain step on, it calls its activations twice."""

    often = False

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.one(x))
        if self.often:
            x = F.softplus(self.act(self.one(torch.cat([x, x[:, :1]], 1))))
        return self.head(F.relu(self.two(x)))


def test_calls_that_come_later_are_said_and_then_counted() -> None:
    def often(model: Any, call: Any, step: int) -> None:
        model.often = step >= 9

    with pytest.warns(UserWarning, match="some calls in compiled code are not counted"):
        got, _, _ = train(Branching, lambda m: torch.compile(m, backend="eager"), between=often)
    last = got[got["step"] == STEPS]
    assert set(last["n"][last["site"] == ":relu"]) <= {7 * 16, 2 * 16}  # all, or up to where it changed


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"evidence": True}, "evidence"), ({"per_call": True}, "one by one")],
    ids=["evidence", "per call"],
)
def test_what_needs_python_at_every_call_runs_eagerly_and_says_so(
    options: dict[str, Any], reason: str
) -> None:
    counter = CompileCounterWithBackend("eager")
    want, _, _ = train(MLP, eager, **options)
    got, _, recorder = train(MLP, lambda m: torch.compile(m, backend=counter), **options)
    assert counter.frame_count == 0
    pd.testing.assert_frame_equal(got, want)
    assert reason in recorder.plan.compiled


def test_afterwards_it_is_compiled_without_taps() -> None:
    torch.manual_seed(0)
    model = MLP(inplace=True)
    counter = CompileCounterWithBackend("eager")
    compiled: Any = torch.compile(model, backend=counter, fullgraph=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with harness.Recorder(model, optimizer=optimizer, census_every=None) as recorder:
        for _ in range(10):
            compiled(torch.ones(2, 6)).sum().backward()
            optimizer.step()
            recorder.step()
    assert set(recorder.census()["n"]) == {20}
    graphs = len(counter.graphs)
    compiled(torch.ones(2, 6)).sum().backward()
    assert len(counter.graphs) == graphs + 1
    assert not any("int64" in str(node.meta.get("example_value")) for node in counter.graphs[-1].graph.nodes)
    assert set(recorder.census()["n"]) == {20}


def saved_bytes(call: Callable[[Tensor], Tensor], x: Tensor) -> int:
    """How much a forward keeps for its backward pass."""
    sizes: list[int] = []

    def packed(tensor: Tensor) -> Tensor:
        sizes.append(tensor.nbytes)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(packed, lambda tensor: tensor):
        call(x).sum().backward()
    return sum(sizes)


@pytest.mark.parametrize("inplace", [False, True])
def test_no_mask_is_kept_that_the_bare_graph_computes_again(inplace: bool) -> None:
    """A pre-activation that is read before its activation would make the compiler keep the mask."""
    torch.manual_seed(0)
    normed = [nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace), nn.MaxPool2d(2)]
    bare = nn.Sequential(*normed, nn.Flatten(), nn.Linear(64, 2))
    watched = copy.deepcopy(bare)
    x = torch.randn(8, 1, 8, 8)
    calls: list[Any] = [torch.compile(m, backend="aot_eager_decomp_partition") for m in (bare, watched)]
    with harness.Recorder(watched, census_every=None) as recorder:
        for _ in range(10):
            calls[1](x).sum().backward()
            recorder.step()
        assert recorder.plan.compiled == "counted in the graph"
        shapes = 2 * 4 * 8  # of sums that are written to, not of activations
        assert saved_bytes(calls[1], x) <= saved_bytes(calls[0], x) + shapes
    assert recorder.census()["n"].tolist() == [11 * 512] * 4


def test_a_model_that_is_not_compiled_has_no_hooks_for_compiled_code() -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
    with harness.Recorder(model, census_every=None) as recorder:
        for _ in range(12):
            model(torch.ones(2, 6)).sum().backward()
            recorder.step()
        assert not model[1]._forward_hooks
        assert model[1]._forward_pre_hooks


def test_no_batch_is_kept_alive() -> None:
    """A graph is tried on tensors that look like the last batch's, not on the batch."""
    batches: list[weakref.ref[Tensor]] = []

    class Remembering(MLP):
        def forward(self, x: Tensor) -> Tensor:
            if not torch.compiler.is_compiling():
                batches.append(weakref.ref(x))
            return super().forward(x)

    _, _, recorder = train(Remembering, eager)
    gc.collect()
    assert len(batches) == STEPS
    assert not any(batch() is not None for batch in batches)
    assert recorder.plan.sites


def train_with_a_branch_that_begins(steps: int = 30) -> harness.Recorder:
    torch.manual_seed(0)
    model = Branching()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    compiled: Any = torch.compile(model, backend="eager")
    with harness.Recorder(model, optimizer=optimizer, census_every=1) as recorder:
        for step in range(steps):
            model.often = step >= 9
            compiled(torch.randn(8, 6)).sum().backward()
            optimizer.step()
            recorder.step()
    return recorder


def test_a_lasting_change_is_learned_though_every_step_has_a_census() -> None:
    with pytest.warns(UserWarning, match="some calls in compiled code are not counted"):
        recorder = train_with_a_branch_that_begins()
    assert recorder.plan.compiled == "counted in the graph"
    units = recorder.history()
    last = units[(units["step"] == 30) & (units["site"] == ":softplus")]
    assert set(last["n"]) == {8}


def test_what_is_written_to_stays_where_it_is_so_that_cuda_graphs_can_be_made() -> None:
    written: list[list[Any]] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        kinds = [node.meta.get("tensor_dict", {}) for node in graph.graph.find_nodes(op="placeholder")]
        written.append([kind.get("_dynamo_static_input_type") for kind in kinds])
        return graph

    train(MLP, lambda m: torch.compile(m, backend=backend, fullgraph=True))
    sums_of_two_sites = 2 * 3
    assert len(written) == 1
    assert len(written[-1]) - written[-1].count(None) >= sums_of_two_sites
    assert written[-1].count(None) == 1  # the batch


@pytest.mark.parametrize("backend", ["aot_eager", "eager"])
def test_several_forwards_may_come_before_a_backward(backend: str) -> None:
    """As in a contrastive loss: no forward writes to what the backward of another one has kept."""

    def train_on_pairs(compile: Callable[[nn.Module], Any]) -> pd.DataFrame:
        torch.manual_seed(0)
        model = MLP()
        call = compile(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        generator = torch.Generator().manual_seed(1)
        with harness.Recorder(model, optimizer=optimizer, census_every=7) as recorder:
            for _ in range(STEPS):
                one, two = torch.randn(2, 8, 6, generator=generator)
                near, far = call(one), call(two)
                aside = model.act(model.one(two))  # between the forwards and their backward
                (near - far).square().mean().backward()
                aside.sum().backward()
                optimizer.step()
                optimizer.zero_grad()
                recorder.step()
        assert "eagerly" not in str(recorder.plan)
        return recorder.history()

    want = train_on_pairs(eager)
    assert_alike(train_on_pairs(lambda m: torch.compile(m, backend=backend)), want)


@pytest.mark.parametrize("by", ["another recorder", "the user"])
def test_the_model_is_not_run_to_see_whether_it_is_one_graph(by: str) -> None:
    """Also where compiled code runs eagerly: a forward of ours would be counted, and draw random numbers."""
    model, other = nn.Sequential(MLP(), nn.Dropout()), MLP()
    compiled: Any = torch.compile(model, backend="aot_eager")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    by_us = by == "another recorder"
    stance = nullcontext() if by_us else torch.compiler.set_stance("force_eager")
    watching = harness.Recorder(other) if by_us else nullcontext()
    with stance, watching, harness.Recorder(model, optimizer=optimizer, census_every=1) as recorder:
        if by_us:
            other(torch.randn(2, 6))
        for step in range(12):
            torch.manual_seed(step)
            compiled(torch.randn(4, 6)).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            before = torch.get_rng_state()
            recorder.step()
            assert torch.equal(torch.get_rng_state(), before)
    assert set(recorder.history()["n"]) == {4}
