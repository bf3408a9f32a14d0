"""What compiled code cannot count is said, and what is not counted costs nothing."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from compiled_nets import MLP, STEPS, assert_alike, eager, train
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

import harness

pytestmark = pytest.mark.usefixtures("fresh_compiler")


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
