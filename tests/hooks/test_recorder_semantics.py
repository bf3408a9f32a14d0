"""DESIGN.md §4b, line by line."""

from __future__ import annotations

import copy
import io
import pickle
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import harness
from harness.selftest.axes import ConvNet
from harness.selftest.case import kill
from harness.selftest.compare import assert_same_census
from harness.selftest.forms import Functional
from harness.selftest.machinery import Checkpointed, Encoder
from harness.selftest.plain import mlp
from harness.selftest.sharing import BasicBlock, Mixed
from harness.selftest.truth import COLUMNS, unit_norms
from harness.selftest.unseen import NeverCalled, Recurrent


def small() -> Any:
    """Four units: 0 dead, 1 always on, 2 and 3 neither."""
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    kill(model[0], 0, 1)
    with torch.no_grad():
        model[0].bias[1] = 1
    return model


def x(rows: int = 10, seed: int = 0, columns: int = 3) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def train_step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Tensor) -> None:
    model(batch).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.01)


def hooks_of(model: nn.Module) -> list[tuple[str, str, list[Any]]]:
    """Every hook of every module and parameter, as torch keeps them."""
    found: list[tuple[str, str, list[Any]]] = []
    for name, module in model.named_modules(remove_duplicate=False):
        for attribute, value in vars(module).items():
            if "hooks" in attribute and isinstance(value, dict):
                found.append((name, attribute, list(value.values())))
        found.append((name, "forward", [vars(module).get("forward"), type(module)]))
    for name, parameter in model.named_parameters():
        found.append((name, "_backward_hooks", list((parameter._backward_hooks or {}).values())))
    return found


def optimizer_hooks(optimizer: torch.optim.Optimizer) -> dict[str, list[Any]]:
    return {k: list(v.values()) for k, v in vars(optimizer).items() if "hooks" in k}


def global_hooks() -> list[int]:
    spaces = (sys.modules["torch.nn.modules.module"], sys.modules["torch.optim.optimizer"])
    found = [v for space in spaces for k, v in sorted(vars(space).items()) if k.startswith("_global")]
    return [len(v) for v in found if isinstance(v, dict)]


# ----------------------------------------------------------------------------------- window and census


def test_census_closes_the_window() -> None:
    model = small()
    with harness.Recorder(model, census_every=None) as recorder:
        model(x(10))
        model(x(7))
        first = recorder.census()
        model(x(5))
        second = recorder.census()
    assert list(first.columns) == COLUMNS
    assert set(first.n) == {17}
    assert set(second.n) == {5}
    assert first.state.tolist()[:2] == ["dead", "always_on"]
    assert len(recorder.history()) == 8
    pd.testing.assert_frame_equal(recorder.census(), second)


def test_census_of_nothing() -> None:
    model = small()
    with harness.Recorder(model, census_every=None) as recorder:
        model(x())
        recorder.census()
        empty = recorder.census()
    assert list(empty.unit) == [0, 1, 2, 3]
    assert set(empty.n) == {0}
    assert set(empty.active) == {0}
    assert set(empty.state) == {"unobserved"}
    assert empty.rate.isna().all()
    assert set(empty.rate_upper) == {1.0}
    assert empty[["mean", "std", "max", "grad_rms"]].isna().all(axis=None)


def test_leaving_closes_a_window_once() -> None:
    model = small()
    with harness.Recorder(model, census_every=2) as recorder:
        for _ in range(3):
            model(x())
            recorder.step()
    assert recorder.history().step.unique().tolist() == [2, 3]
    assert set(recorder.census().n) == {10}
    assert len(recorder.history()) == 8
    pd.testing.assert_frame_equal(recorder.census(), recorder.census())


def test_leaving_an_empty_window_adds_nothing() -> None:
    model = small()
    with harness.Recorder(model, census_every=2) as recorder:
        for _ in range(4):
            model(x())
            recorder.step()
    history = recorder.history()
    assert history.step.unique().tolist() == [2, 4]
    last = recorder.census()
    assert set(last.step) == {4}
    assert set(last.n) == {20}


def test_no_step_at_all() -> None:
    """Without step() the label is 0 and leaving the block still closes the window."""
    model = small()
    with harness.Recorder(model) as recorder:
        model(x(3))
    assert set(recorder.census().step) == {0}
    assert set(recorder.census().n) == {3}


def test_census_every_counts_steps() -> None:
    """Forwards between two steps are one window, and a census on demand does not move the schedule."""
    model = small()
    with harness.Recorder(model, census_every=3) as recorder:
        for step in range(1, 8):
            for _ in range(2):
                model(x(4))
            recorder.step()
            if step == 4:
                recorder.census()
    n = recorder.history().groupby("step").n.first()
    assert n.to_dict() == {3: 24, 4: 8, 6: 16, 7: 8}


def test_only_on_demand() -> None:
    model = small()
    with harness.Recorder(model, census_every=None) as recorder:
        for _ in range(250):
            model(x(1))
            recorder.step()
    assert recorder.history().step.unique().tolist() == [250]


def test_default_is_every_hundred_steps() -> None:
    model = small()
    with harness.Recorder(model) as recorder:
        for _ in range(150):
            model(x(1))
            recorder.step()
    assert recorder.history().step.unique().tolist() == [100, 150]


def test_an_exception_in_the_block() -> None:
    """It passes through; what was seen is kept; nothing stays attached."""
    model = small()
    before = hooks_of(model)
    recorder = harness.Recorder(model, census_every=None)

    def body() -> None:
        with recorder:
            model(x())
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        body()
    assert hooks_of(model) == before
    assert set(recorder.census().n) == {10}


def test_an_exception_in_a_forward() -> None:
    """A forward that fails halfway leaves the recorder usable."""
    model = small()
    with harness.Recorder(model, census_every=None) as recorder:
        model(x())
        recorder.census()
        with pytest.raises(RuntimeError):
            model(torch.randn(2, 99))
        model(x(6))
        assert set(recorder.census().n) == {6}


def test_history_is_every_census() -> None:
    model = small()
    with harness.Recorder(model, census_every=1) as recorder:
        taken = []
        for i in range(3):
            model(x(i + 1))
            recorder.step()
            taken.append(recorder.history().query("step == @i + 1"))
    history = recorder.history()
    assert list(history.columns) == COLUMNS
    assert history.groupby("step").n.first().tolist() == [1, 2, 3]
    pd.testing.assert_frame_equal(pd.concat(taken, ignore_index=True), history.reset_index(drop=True))


# --------------------------------------------------------------------------------------------- silence


def test_silent_for_spans_windows() -> None:
    layer = nn.Linear(1, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0], [-1.0]]))
        layer.bias.zero_()
    model = nn.Sequential(layer, nn.ReLU())
    up, down = torch.ones(3, 1), -torch.ones(5, 1)
    with harness.Recorder(model, census_every=None) as recorder:
        model(up)
        assert recorder.census().silent_for.tolist() == [0, 3]
        model(down)
        model(down)
        assert recorder.census().silent_for.tolist() == [10, 0]
        model(up)
        assert recorder.census().silent_for.tolist() == [0, 3]
        model(torch.cat([up, down]))
        assert recorder.census().silent_for.tolist() == [0, 0]
        model(torch.zeros(7, 1))
        assert recorder.census().silent_for.tolist() == [7, 7]


# ------------------------------------------------------------------------------------- what is counted


@pytest.mark.parametrize(("observe", "n"), [("train", 3), ("eval", 5), ("all", 8)])
@pytest.mark.parametrize("grad", [True, False])
def test_observe(observe: str, n: int, grad: bool) -> None:
    """The root's mode decides; grad mode plays no part."""
    model = small()
    with (
        harness.Recorder(model, observe=observe, census_every=None) as recorder,
        torch.set_grad_enabled(grad),
    ):
        model.train()(x(3))
        model.eval()(x(5))
        model[0].train()
        model[1].train()
        assert set(recorder.census().n) == {n}


def test_inference_mode() -> None:
    model = small().eval()
    with harness.Recorder(model, observe="eval", census_every=None) as recorder, torch.inference_mode():
        model(x(5))
        assert set(recorder.census().n) == {5}


def test_only_forwards_of_the_root_count() -> None:
    model = small()
    with harness.Recorder(model, census_every=None) as recorder:
        model(x(4))
        model[1](model[0](x(9)))
        assert set(recorder.census().n) == {4}


class Late(nn.Module):
    """An activation that is first called as a function after some forwards."""

    def __init__(self, first: int) -> None:
        super().__init__()
        self.fc, self.act, self.head = nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4)
        self.first, self.forwards = first, 0

    def forward(self, batch: Tensor) -> Tensor:
        self.forwards += 1
        z = self.head(self.act(self.fc(batch)))
        return F.relu(z) if self.forwards >= self.first else z


@pytest.mark.parametrize("first", [1, 2, 3, 6])
def test_a_function_called_late(first: int) -> None:
    """Every forward counts, also those of a branch that was not taken at first."""
    model = Late(first)
    with harness.Recorder(model, census_every=None) as recorder:
        for _ in range(10):
            model(x(2))
        census = recorder.census()
    assert census.groupby("site").n.first().to_dict() == {"act": 20, ":relu": 2 * (11 - first)}


def test_maximum_of_two_data_tensors_is_no_activation() -> None:
    """Even where one of them happens to be zero everywhere."""

    class Larger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.act = nn.Linear(3, 4), nn.Linear(3, 4), nn.ReLU()
            kill(self.b, 0, 1, 2, 3)

        def forward(self, batch: Tensor) -> Tensor:
            return torch.maximum(self.a(batch), self.act(self.b(batch)))

    assert set(harness.scan(Larger(), x()).units.site) == {"act"}


def test_batches_with_and_without_positions() -> None:
    """The channel axis of a BatchNorm is 1, whatever follows it."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm1d(5), nn.ReLU())
    flat, long = torch.randn(4, 5), torch.randn(2, 5, 5)
    with harness.Recorder(model, census_every=None, observe="eval") as recorder:
        model.eval()(flat)
        model(long)
        census = recorder.census()
    rows = torch.cat([flat, long.transpose(1, 2).reshape(-1, 5)])
    assert census.n.tolist() == [14] * 5
    assert census.active.tolist() == (rows > 0).sum(0).tolist()


def test_functions_outside_the_model_do_not_count() -> None:
    torch.manual_seed(0)
    model = Functional("relu", F.relu)
    with harness.Recorder(model, census_every=None) as recorder:
        F.relu(model(x(4, columns=6)))
        F.relu(torch.randn(3, 3))
        census = recorder.census()
    assert set(census.site) == {":relu", ":relu#1"}
    assert set(census.n) == {4}


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_recomputation_is_not_counted(reentrant: bool, accumulate: int) -> None:
    torch.manual_seed(0)
    model = Checkpointed(reentrant)
    with harness.Recorder(model, census_every=None) as recorder:
        for i in range(accumulate):
            model(x(4, i, 6)).square().sum().backward()
        census = recorder.census()
    assert set(census.n) == {4 * accumulate}
    assert census.grad_rms.notna().all()


def copies(model: nn.Module) -> Iterator[nn.Module]:
    yield copy.deepcopy(model)
    yield pickle.loads(pickle.dumps(model))
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    yield torch.load(buffer, weights_only=False)


@pytest.mark.parametrize("make", [small, lambda: Functional("relu", torch.relu), Mixed, BasicBlock])
def test_copies_of_an_attached_model_do_not_count(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    model = make()
    batch = {"Sequential": x(4), "BasicBlock": torch.randn(4, 4, 3, 3)}.get(
        type(model).__name__, x(4, columns=6)
    )
    optimizer = sgd(model)
    with harness.Recorder(model, optimizer=optimizer, census_every=None) as recorder:
        for _ in range(2):
            model(batch).sum().backward()  # also copy a model that has run
            for twin in copies(model):
                twin(batch).sum().backward()
                for a, b in zip(twin.parameters(), model.parameters(), strict=True):
                    assert torch.equal(a, b)
        census = recorder.census()
        per_forward = 4 * (9 if isinstance(model, BasicBlock) else 1)
        assert set(census.n) <= {2 * per_forward, 4 * per_forward}  # Mixed uses one layer under two sites
        assert census.n.min() == 2 * per_forward


def test_state_dict_of_an_attached_model() -> None:
    model = small()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with harness.Recorder(model, census_every=None):
        model(x())
        after = model.state_dict()
        assert list(after) == list(before)
        assert all(torch.equal(after[k], before[k]) for k in before)
        assert len(list(model.modules())) == 4
        assert len(list(model.buffers())) == 0
        small().load_state_dict(after)
    assert list(model.state_dict()) == list(before)


# ------------------------------------------------------------------------------------------- no traces


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (small, (4, 3)),
        (lambda: Functional("relu", F.relu), (4, 6)),
        (Mixed, (4, 6)),
        (lambda: ConvNet(nn.BatchNorm2d), (2, 2, 8, 8)),
        (Encoder, (2, 3, 8)),
        (lambda: Checkpointed(False), (4, 6)),
    ],
)
@pytest.mark.parametrize("failing", [False, True])
def test_detaching_leaves_nothing(
    make: Callable[[], nn.Module], shape: tuple[int, ...], failing: bool
) -> None:
    torch.manual_seed(0)
    model = make()
    optimizer = sgd(model)

    def mine(module: nn.Module, args: Any, output: Any) -> None: ...

    model.register_forward_hook(mine)
    before, optimizers, everywhere = hooks_of(model), optimizer_hooks(optimizer), global_hooks()
    attributes = {name: set(vars(module)) for name, module in model.named_modules()}
    recorder = harness.Recorder(model, optimizer=optimizer, census_every=None)
    try:
        with recorder:
            train_step(model, optimizer, torch.randn(shape))
            recorder.step()
            assert hooks_of(model) != before
            if failing:
                raise KeyError
    except KeyError:
        pass
    assert hooks_of(model) == before
    assert optimizer_hooks(optimizer) == optimizers
    assert global_hooks() == everywhere
    assert {name: set(vars(module)) for name, module in model.named_modules()} == attributes
    assert len(torch.overrides._get_current_function_mode_stack()) == 0
    if not failing:
        n = set(recorder.census().n)
        model(torch.randn(shape))
        assert set(recorder.census().n) == n


def test_a_late_backward_is_harmless() -> None:
    """A graph built under observation may be walked afterwards."""
    model = small()
    with harness.Recorder(model, census_every=None) as recorder:
        loss = model(x()).sum()
    loss.backward()
    assert recorder.census().grad_rms.isna().all()
    assert model[0].weight.grad is not None


def test_attach_again() -> None:
    model = small()
    for rows in (3, 4):
        with harness.Recorder(model, census_every=None) as recorder:
            model(x(rows))
        assert set(recorder.census().n) == {rows}


def test_two_recorders_at_once() -> None:
    model = small()
    optimizer = sgd(model)
    with (
        harness.Recorder(model, optimizer=optimizer, census_every=None) as outer,
        harness.Recorder(model, optimizer=optimizer, census_every=None) as inner,
    ):
        train_step(model, optimizer, x())
        a, b = outer.census(), inner.census()
        pd.testing.assert_frame_equal(a, b)
        assert set(a.n) == {10}
        model(x(3))
    pd.testing.assert_frame_equal(outer.census(), inner.census())
    assert set(outer.census().n) == {3}


def test_two_recorders_of_functions() -> None:
    torch.manual_seed(0)
    model = Functional("relu", F.relu)
    with (
        harness.Recorder(model, census_every=None) as outer,
        harness.Recorder(model, census_every=None, observe="all") as inner,
    ):
        model(x(4, columns=6))
        model.eval()(x(4, columns=6))
    assert set(outer.census().n) == {4}
    assert set(inner.census().n) == {8}


def test_recorders_detach_in_any_order() -> None:
    torch.manual_seed(0)
    model = Mixed()
    before = hooks_of(model)
    a, b = harness.Recorder(model, census_every=None), harness.Recorder(model, census_every=None)
    a.__enter__()
    model(x(2, columns=6))
    b.__enter__()
    model(x(4, columns=6))
    a.__exit__(None, None, None)
    model(x(8, columns=6))
    b.__exit__(None, None, None)
    assert hooks_of(model) == before
    assert a.census().n.min() == 6
    assert b.census().n.min() == 12


# ------------------------------------------------------------------------------- training is untouched


def dropout_cnn() -> Any:
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Dropout(0.3),
        nn.Conv2d(6, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 3),
    )  # fmt: skip


@pytest.mark.parametrize("recorded", ["plain", "probe"])
@pytest.mark.parametrize("rule", ["sgd", "adam"])
@pytest.mark.parametrize(
    ("make", "shape"),
    [(mlp, (8, 6)), (dropout_cnn, (6, 1, 8, 8)), (Mixed, (8, 6)), (lambda: Encoder(0.2), (2, 3, 8))],
    ids=["mlp", "cnn", "mixed", "encoder"],
)
def test_training_is_bit_identical(
    make: Callable[[], nn.Module], shape: tuple[int, ...], rule: str, recorded: str
) -> None:
    runs = []
    steps = 100 if shape != (2, 3, 8) else 30
    for watched in (False, True):
        torch.manual_seed(0)
        model = make()
        optimizer: torch.optim.Optimizer = (
            torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
            if rule == "sgd"
            else torch.optim.Adam(model.parameters(), lr=0.01)
        )
        probe = x(16).new_ones((5, *shape[1:])) if recorded == "probe" else None
        recorder = (
            harness.Recorder(model, optimizer=optimizer, census_every=7, probe=probe) if watched else None
        )
        losses = []
        if recorder:
            recorder.__enter__()
        for _ in range(steps):
            loss = model(torch.randn(shape)).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.detach())
            if recorder:
                recorder.step()
        if recorder:
            recorder.__exit__(None, None, None)
        moments = [v for s in optimizer.state.values() for v in s.values() if isinstance(v, Tensor)]
        runs.append([*losses, *model.state_dict().values(), *moments, torch.get_rng_state()])
    assert len(runs[0]) == len(runs[1])
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


# ------------------------------------------------------------------------------------------- gradients


ORDERS = ["after", "before", "none"]


@pytest.mark.parametrize("set_to_none", [True, False])
@pytest.mark.parametrize("order", ORDERS)
def test_order_of_zero_grad(order: str, set_to_none: bool) -> None:
    """grad_norm is what the optimizer used, wherever zero_grad stands."""
    model = small()
    optimizer = sgd(model)
    with harness.Recorder(model, optimizer=optimizer, census_every=3) as recorder:
        norms: list[float] = []
        for i in range(3):
            if order == "before":
                optimizer.zero_grad(set_to_none=set_to_none)
            model(x(seed=i)).square().mean().backward()
            norms = unit_norms(model[0])
            optimizer.step()
            if order == "after":
                optimizer.zero_grad(set_to_none=set_to_none)
            recorder.step()
    assert recorder.census().grad_norm.tolist() == pytest.approx(norms, rel=1e-5, abs=0)


ACTIONS = [
    "train",
    "train",
    "train",
    "backward",
    "step",
    "zero",
    "clear",
    "evaluate",
    "recorded",
    "recorded",
    "census",
]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from(ACTIONS), min_size=3, max_size=40), st.sampled_from([None, 1, 3]), st.booleans()
)
def test_any_order_of_calls(actions: list[str], census_every: int | None, given_optimizer: bool) -> None:
    """n, grad_rms and grad_norm of every census, however a loop is written."""
    model = small()
    twin = copy.deepcopy(model)
    optimizer, twins = sgd(model), sgd(twin)
    z_grads: list[Tensor] = []
    n, norms, want = 0, [float("nan")] * 4, []

    def now() -> list[float]:
        return norms if given_optimizer else unit_norms(twin[0])

    def close() -> None:
        nonlocal n, norms, z_grads
        rms = torch.cat(z_grads).double().square().mean(0).sqrt().tolist() if z_grads else [float("nan")] * 4
        want.append((n, rms, now()))
        n, norms, z_grads = 0, [float("nan")] * 4, []

    recorder = harness.Recorder(
        model, optimizer=optimizer if given_optimizer else None, census_every=census_every
    )
    steps = 0
    with recorder:
        for i, action in enumerate(["train", *actions]):
            batch = x(4, seed=i)
            if action in ("train", "backward"):
                model(batch).square().mean().backward()
                z = twin[0](batch)
                z.retain_grad()
                twin[2](F.relu(z)).square().mean().backward()
                assert z.grad is not None
                z_grads.append(z.grad)
                n += 4
            if action in ("train", "step"):
                if any(p.grad is not None for p in twin.parameters()):
                    norms = unit_norms(twin[0])
                optimizer.step()
                twins.step()
            if action in ("train", "zero", "clear"):
                for o in (optimizer, twins):
                    o.zero_grad(set_to_none=action != "zero")
            if action == "evaluate":
                with torch.no_grad():
                    model.eval()(batch)
                model.train()
            if action in ("train", "recorded"):
                steps += 1
                recorder.step()
                if census_every and steps % census_every == 0:
                    close()
            if action == "census":
                recorder.census()
                close()
        if n:
            close()
    history = recorder.history()
    got = [history.iloc[4 * i : 4 * i + 4] for i in range(len(history) // 4)]
    assert [census.n.tolist() for census in got] == [[n] * 4 for n, _, _ in want]
    for census, (_, rms, norm) in zip(got, want, strict=True):
        np.testing.assert_allclose(census.grad_rms, rms, rtol=1e-5)
        np.testing.assert_allclose(census.grad_norm, norm, rtol=1e-5)


@pytest.mark.parametrize("validate_before", [True, False])
def test_a_validation_pass_between_the_steps(validate_before: bool) -> None:
    """Evaluating between the optimizer's step and the recorder's does not lose the gradients."""
    model = small()
    optimizer = sgd(model)
    norms: list[float] = []
    with harness.Recorder(model, optimizer=optimizer, census_every=5) as recorder:
        for i in range(10):
            optimizer.zero_grad()
            model(x(seed=i)).square().mean().backward()
            norms = unit_norms(model[0])
            optimizer.step()
            if i % 5 == 4 and validate_before:
                with torch.no_grad():
                    model.eval()(x())
                model.train()
            recorder.step()
            if i % 5 == 4:
                census = recorder.history().query("step == @i + 1")
                assert census.grad_norm.tolist() == pytest.approx(norms, rel=1e-5, abs=0)


def test_grad_norm_is_of_the_last_step_of_the_window() -> None:
    model = small()
    optimizer = sgd(model)
    with harness.Recorder(model, optimizer=optimizer, census_every=None) as recorder:
        train_step(model, optimizer, x(seed=1))
        model(x(seed=2)).square().mean().backward()
        norms = unit_norms(model[0])
        optimizer.step()
        optimizer.zero_grad()
        model(x(seed=3))
        first = recorder.census()
        model(x(seed=4))
        second = recorder.census()
    assert first.grad_norm.tolist() == pytest.approx(norms, rel=1e-5, abs=0)
    assert second.grad_norm.isna().all()  # no optimizer step in this window


def test_grad_norm_is_read_after_unscaling_and_clipping() -> None:
    model = small()
    optimizer = sgd(model)
    with harness.Recorder(model, optimizer=optimizer, census_every=None) as recorder:
        (model(x()).square().mean() * 1024).backward()
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter.grad /= 1024
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
        norms = unit_norms(model[0])
        optimizer.step()
        census = recorder.census()
    assert census.grad_norm.tolist() == pytest.approx(norms, rel=1e-5, abs=0)


def test_several_optimizers() -> None:
    torch.manual_seed(0)
    model = mlp()
    optimizers = [sgd(model[0]), sgd(model[2]), sgd(model[4])]
    with harness.Recorder(model, optimizer=optimizers, census_every=None) as recorder:
        model(x(columns=6)).square().mean().backward()
        norms = unit_norms(model[0]) + unit_norms(model[2])
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        census = recorder.census()
    assert census.grad_norm.tolist() == pytest.approx(norms, rel=1e-5, abs=0)


def test_grad_norm_without_optimizer() -> None:
    """Then `.grad` is read at the census, if there is any."""
    model = small()
    with harness.Recorder(model, census_every=None) as recorder:
        model(x()).square().mean().backward()
        norms = unit_norms(model[0])
        there = recorder.census()
        model(x()).square().mean().backward()
        model.zero_grad()
        gone = recorder.census()
    assert there.grad_norm.tolist() == pytest.approx(norms, rel=1e-5, abs=0)
    assert gone.grad_norm.isna().all()


def test_grad_rms_without_backward() -> None:
    model = small()
    with harness.Recorder(model, census_every=None) as recorder:
        model(x())
        without = recorder.census()
        with torch.no_grad():
            model(x(8))
        model(x(4)).sum().backward()
        mixed = recorder.census()
    assert without.grad_rms.isna().all()
    assert "starved" not in set(without.state)
    z = model[0](x(4)).detach().requires_grad_()
    model[2](F.relu(z)).sum().backward()
    assert z.grad is not None
    assert mixed.grad_rms.tolist() == pytest.approx(z.grad.square().mean(0).sqrt().tolist(), rel=1e-5)
    assert set(mixed.n) == {12}  # grad_rms is over the four inputs whose backward ran


def test_grad_rms_is_not_rescaled() -> None:
    model = small()
    with harness.Recorder(model, census_every=None) as recorder:
        model(x()).sum().backward()
        one = recorder.census()
        (model(x()).sum() * 1e3).backward()
        thousand = recorder.census()
    assert thousand.grad_rms.tolist() == pytest.approx((one.grad_rms * 1e3).tolist(), rel=1e-5)


def test_without_gradients() -> None:
    model = small()
    with harness.Recorder(model, census_every=None, gradients=False) as recorder:
        model(x()).sum().backward()
        census = recorder.census()
    assert census.grad_rms.isna().all()
    assert "starved" not in set(census.state)


def test_frozen_layers() -> None:
    """No gradient reaches a frozen first layer's unit; that is unknown, not starved."""
    model = small()
    model[0].requires_grad_(False)
    optimizer = torch.optim.SGD(model[2].parameters(), lr=0.1)
    with harness.Recorder(model, optimizer=optimizer, census_every=None) as recorder:
        train_step(model, optimizer, x())
        census = recorder.census()
    assert set(census.n) == {10}
    assert census.grad_rms.isna().all()
    assert census.grad_norm.isna().all()
    assert "starved" not in set(census.state)


def test_retained_graph_and_two_losses() -> None:
    """The counts are of inputs, whatever backward does."""
    model = small()
    with harness.Recorder(model, census_every=None) as recorder:
        output = model(x())
        output[:, 0].sum().backward(retain_graph=True)
        output[:, 1].sum().backward()
        assert set(recorder.census().n) == {10}


# ----------------------------------------------------------------------------------------------- probe


def test_probe_before_the_first_step() -> None:
    model = small()
    optimizer = sgd(model)
    probe = x(50, seed=9)
    with torch.no_grad():
        z = model[0](probe)
    with harness.Recorder(model, optimizer=optimizer, census_every=2, probe=probe) as recorder:
        for i in range(4):
            train_step(model, optimizer, x(seed=i))
            recorder.step()
        with torch.no_grad():
            later = model[0](probe)
    history = recorder.history()
    assert list(history.columns) == COLUMNS
    probed, stream = history[history.evidence == "probe"], history[history.evidence == "stream"]
    assert probed.step.unique().tolist() == [0, 2, 4]
    assert stream.step.unique().tolist() == [2, 4]
    assert set(probed.n) == {50}
    assert set(stream.n) == {20}
    assert probed[probed.step == 0].active.tolist() == (z > 0).sum(0).tolist()
    assert probed[probed.step == 4].active.tolist() == (later > 0).sum(0).tolist()
    lives = harness.lifetimes(history).set_index("unit")
    assert bool(lives.born_dead[0])
    assert pd.isna(lives.died_at[0])
    assert not lives.born_dead[1:].any()


def test_probe_in_evaluation_mode_leaves_no_trace() -> None:
    """BatchNorm's statistics, modes, gradients and random state are as without a probe."""
    torch.manual_seed(0)
    model = dropout_cnn()
    model[3].eval()
    modes = [module.training for module in model.modules()]
    buffers = {k: v.clone() for k, v in model.named_buffers()}
    probe = [torch.randn(4, 1, 8, 8), (torch.randn(2, 1, 8, 8), torch.zeros(2))]
    rng = torch.get_rng_state()
    with harness.Recorder(model, census_every=None, probe=probe) as recorder:
        assert torch.equal(torch.get_rng_state(), rng)
        assert all(torch.equal(v, buffers[k]) for k, v in model.named_buffers())
        with torch.no_grad():
            model(torch.randn(2, 1, 8, 8))
        buffers = {k: v.clone() for k, v in model.named_buffers()}
        rng = torch.get_rng_state()
        recorder.census()
        assert torch.equal(torch.get_rng_state(), rng)
        assert [module.training for module in model.modules()] == modes
        assert all(torch.equal(v, buffers[k]) for k, v in model.named_buffers())
        assert all(p.grad is None for p in model.parameters())
    probed = recorder.history().query("evidence == 'probe'")
    assert probed.groupby("site").n.first().to_dict() == {"2": 6 * 36, "6": 6 * 16}


@pytest.mark.parametrize("observe", ["eval", "all"])
def test_the_probe_is_no_part_of_the_stream(observe: str) -> None:
    model = small().eval()
    with harness.Recorder(model, observe=observe, census_every=None, probe=x(50)) as recorder:
        for _ in range(2):
            model(x(4))
            recorder.census()
    history = recorder.history()
    assert set(history[history.evidence == "stream"].n) == {4}
    assert set(history[history.evidence == "probe"].n) == {50}


def test_a_census_before_any_forward_with_a_probe() -> None:
    """The probe has seen every site: none is unknown, none was never called."""
    model = small()
    with harness.Recorder(model, census_every=None, probe=x(50)) as recorder:
        census = recorder.census()
    stream = census[census.evidence == "stream"]
    assert set(stream.state) == {"unobserved"}
    assert set(stream.n) == {0}


def test_the_resumed_run_has_no_second_birth() -> None:
    """A probe census of step 0 is of the model before its first step, not of a resumed one."""
    model = small()
    with harness.Recorder(model, census_every=None, probe=x(9)) as recorder:
        model(x())
        recorder.step()
        state = recorder.state_dict()
    again = harness.Recorder(model, census_every=None, probe=x(9))
    again.load_state_dict(state)
    with again:
        model(x())
        recorder_steps = again.history().step.unique().tolist() if len(again.history()) else []
    assert 0 not in recorder_steps


def test_probe_from_a_generator() -> None:
    """It is read once and can be used at every census."""
    model = small()
    with harness.Recorder(model, census_every=1, probe=(x(5, seed=i) for i in range(2))) as recorder:
        for _ in range(2):
            model(x())
            recorder.step()
    probed = recorder.history().query("evidence == 'probe'")
    assert probed.groupby("step").n.first().to_dict() == {0: 10, 1: 10, 2: 10}
    assert probed[probed.step == 0].drop(columns="step").reset_index(drop=True).active.tolist() == (
        probed[probed.step == 2].active.tolist()
    )


def test_died_and_revived_by_the_stream() -> None:
    layer = nn.Linear(1, 3)
    model = nn.Sequential(layer, nn.ReLU())
    with torch.no_grad():
        layer.weight.fill_(0)
    stories = {1: [1, -1, 1], 2: [-1, -1, 1], 3: [-1, 1, 1], 4: [1, 1, 1]}
    with harness.Recorder(model, census_every=1) as recorder:
        for biases in stories.values():
            with torch.no_grad():
                layer.bias.copy_(torch.tensor(biases, dtype=torch.float32))
            model(torch.ones(4, 1))
            recorder.step()
    lives = harness.lifetimes(recorder.history()).set_index("unit")
    assert lives.born_dead.tolist() == [False, True, False]
    assert lives.died_at[0] == 2
    assert lives.revived_at.tolist()[:2] == [4, 3]
    assert lives.died_at.isna().tolist() == [False, True, True]
    assert lives.revived_at.isna().tolist() == [False, False, True]


# ------------------------------------------------------------------------------------ state and resume


def run(steps: range, model: nn.Module, optimizer: torch.optim.Optimizer, recorder: harness.Recorder) -> None:
    for i in steps:
        train_step(model, optimizer, x(seed=i))
        recorder.step()


@pytest.mark.parametrize("at", [3, 4, 7])
@pytest.mark.parametrize("entered", [True, False])
def test_state_continues_windows(at: int, entered: bool) -> None:
    whole = small()
    optimizer = sgd(whole)
    with harness.Recorder(whole, optimizer=optimizer, census_every=4) as recorder:
        run(range(10), whole, optimizer, recorder)
    want = recorder.history()

    first = small()
    optimizer = sgd(first)
    with harness.Recorder(first, optimizer=optimizer, census_every=4) as recorder:
        run(range(at), first, optimizer, recorder)
        buffer = io.BytesIO()
        torch.save([first.state_dict(), optimizer.state_dict(), recorder.state_dict()], buffer)
    buffer.seek(0)
    states = torch.load(buffer, weights_only=False)

    second = small()
    optimizer = sgd(second)
    second.load_state_dict(states[0])
    optimizer.load_state_dict(states[1])
    recorder = harness.Recorder(second, optimizer=optimizer, census_every=4)
    if not entered:
        recorder.load_state_dict(states[2])
    with recorder:
        if entered:
            recorder.load_state_dict(states[2])
        run(range(at, 10), second, optimizer, recorder)
    got = recorder.history()
    assert_same_census(got[got.step > at], want[want.step > at])
    assert got[got.step > at].silent_for.tolist()[-4] == 100


def test_a_census_straight_after_resuming() -> None:
    """The window that was open goes on, even if no forward follows."""
    model = small()
    with harness.Recorder(model, census_every=None) as recorder:
        model(x(6))
        state = recorder.state_dict()
    with harness.Recorder(model, census_every=None) as resumed:
        resumed.load_state_dict(state)
        assert set(resumed.census().n) == {6}


def test_state_is_a_snapshot() -> None:
    """Going on after state_dict() does not change what it returned."""
    model = small()
    with harness.Recorder(model, census_every=None) as recorder:
        model(x())
        state = recorder.state_dict()
        before = pickle.dumps(state)
        model(x())
        assert pickle.dumps(state) == before


# ------------------------------------------------------------------------------------------ unobserved


@pytest.mark.parametrize(
    ("make", "shape", "site"),
    [
        (NeverCalled, (4, 6), "unused"),
        (lambda: Recurrent(nn.LSTM), (4, 3, 3), "rnn"),
        (lambda: Recurrent(nn.GRU), (4, 3, 3), "rnn"),
    ],
    ids=["never", "lstm", "gru"],
)
def test_unseen_sites_are_rows_and_warn_once(
    make: Callable[[], nn.Module], shape: tuple[int, ...], site: str
) -> None:
    model = make()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with harness.Recorder(model, census_every=1) as recorder:
            for _ in range(3):
                model(torch.randn(shape))
                recorder.step()
    mine = [str(w.message) for w in caught if site in str(w.message)]
    assert len(mine) == 1, [str(w.message) for w in caught]
    rows = recorder.history().query("site == @site")
    assert rows.step.tolist() == [1, 2, 3]
    assert set(rows.unit) == {-1}
    assert set(rows.n) == {0}
    assert set(rows.state) == {"unobserved"}
    assert rows.rate.isna().all()
    assert set(rows.rate_upper) == {1.0}
    (unseen,) = [s for s in recorder.sites if s.name == site]
    assert unseen.reason
    assert unseen.size == -1
    assert all(not s.reason for s in recorder.sites if s.name != site)


def test_a_scripted_module() -> None:
    inner = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(inner)
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), scripted)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        report = harness.scan(model, x())
    mine = [w for w in caught if issubclass(w.category, UserWarning) and "2" in str(w.message)]
    assert len(mine) == 1, [str(w.message) for w in caught]
    rows = report.units[report.units.site.str.startswith("2")]
    assert rows.state.tolist() == ["unobserved"]
    assert rows.unit.tolist() == [-1]


def test_a_model_without_activations() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Softmax(-1))
    with pytest.raises(ValueError, match="activation"):
        harness.scan(model, x())

    def record() -> None:
        with harness.Recorder(model, census_every=1) as recorder:
            model(x())
            recorder.step()

    with pytest.raises(ValueError, match="activation"):
        record()
    assert not any(value for _, kind, value in hooks_of(model) if kind != "forward")


@pytest.mark.parametrize("layer", [nn.Softmax(-1), nn.LogSoftmax(-1), nn.GLU()])
def test_softmax_and_glu_are_no_sites(layer: nn.Module) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), layer)
    assert set(harness.scan(model, x()).units.site) == {"1"}


# ----------------------------------------------------------------------------------------------- sites


class Odd(nn.Module):
    """No module decides the axis: units are taken from what the user says."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.act = nn.Linear(3, 4), nn.ReLU()

    def forward(self, batch: Tensor) -> Tensor:
        return self.act(self.fc(batch).transpose(1, 2))


def test_axis_can_be_overridden() -> None:
    torch.manual_seed(0)
    model = Odd()
    kill(model.fc, 2)
    units = harness.scan(model, torch.randn(2, 5, 3), axis={"act": 1}).units
    assert units.unit.tolist() == [0, 1, 2, 3]
    assert set(units.n) == {10}
    assert units.state[2] == "dead"
    with harness.Recorder(model, census_every=None, axis={"act": 1}) as recorder:
        model(torch.randn(2, 5, 3))
        assert set(recorder.census().n) == {10}


class Scaled(nn.Module):
    """Elementwise operations keep the axis."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act = nn.Conv1d(2, 4, 1), nn.ReLU()
        kill(self.conv, 1)

    def forward(self, batch: Tensor) -> Tensor:
        z = self.conv(batch) * 2 + 0
        return self.act(F.dropout(-z.neg(), 0.0, self.training))


def test_axis_through_elementwise_operations() -> None:
    torch.manual_seed(0)
    units = harness.scan(Scaled(), torch.randn(3, 2, 7)).units
    assert units.unit.tolist() == [0, 1, 2, 3]
    assert set(units.n) == {21}
    assert units.state[1] == "dead"


def test_a_linear_after_a_convolution() -> None:
    """(B, S, F) out of a Linear has its units last, whatever came before."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(2, 4, 1), nn.ReLU(), nn.Linear(7, 5), nn.ReLU())
    units = harness.scan(model, torch.randn(3, 2, 7)).units
    assert units.groupby("site").n.first().to_dict() == {"1": 21, "3": 12}
    assert units.groupby("site").unit.count().to_dict() == {"1": 4, "3": 5}


# ---------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ({"model": lambda x: x}, TypeError),
        ({"model": None}, TypeError),
        ({"optimizer": "sgd"}, TypeError),
        ({"optimizer": [1]}, TypeError),
        ({"census_every": 0}, ValueError),
        ({"census_every": -3}, ValueError),
        ({"census_every": 2.5}, (TypeError, ValueError)),
        ({"observe": "test"}, ValueError),
        ({"gate_eps": -1.0}, ValueError),
        ({"gate_eps": float("nan")}, ValueError),
    ],
)
def test_arguments(arguments: dict[str, Any], kind: type[Exception]) -> None:
    everything: Any = {"model": small()} | arguments
    with pytest.raises(kind):
        harness.Recorder(**everything)


def test_calls_out_of_order() -> None:
    model = small()
    recorder = harness.Recorder(model)
    with pytest.raises(RuntimeError):
        recorder.step()
    with pytest.raises(RuntimeError):
        recorder.census()
    with recorder:
        model(x())
        with pytest.raises(RuntimeError):
            recorder.__enter__()
        recorder.step()
    with pytest.raises(RuntimeError):
        recorder.step()
    assert set(recorder.census().n) == {10}


def test_a_state_of_another_model() -> None:
    model, other = small(), nn.Sequential(nn.Linear(3, 9), nn.ReLU(), nn.Linear(9, 9), nn.ReLU())
    with harness.Recorder(other, census_every=None) as recorder:
        other(x())
        state = recorder.state_dict()

    def resume() -> None:
        with harness.Recorder(model, census_every=None) as recorder:
            recorder.load_state_dict(state)
            model(x())

    with pytest.raises(ValueError, match=r".*"):
        resume()


# ------------------------------------------------------------------------------------------------ scan


def test_kinds_of_batches() -> None:
    model = small()

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, batch: Tensor, scale: float = 1.0) -> Tensor:
            return self.inner(batch * scale)

    want = harness.scan(model, x(10)).units
    assert set(want.n) == {10}  # a bare tensor is one batch
    for batches in (
        [x(10)],
        iter([x(10)]),
        (x(10)[i : i + 5] for i in (0, 5)),
        [(x(10), torch.zeros(10))],
        [[x(10), "label"]],
    ):
        pd.testing.assert_frame_equal(
            harness.scan(model, batches).units.drop(columns="silent_for"), want.drop(columns="silent_for")
        )
    named = Named()
    for batches in ({"batch": x(10)}, [{"batch": x(10), "scale": 1.0}]):
        assert harness.scan(named, batches).units.active.tolist() == want.active.tolist()


class Noisy(nn.Module):
    """Draws random numbers and writes a buffer even in evaluation mode."""

    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.norm, self.act, self.drop = nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout()
        self.register_buffer("count", torch.zeros(1))

    def forward(self, batch: Tensor) -> Tensor:
        self.count += 1
        return self.drop(self.act(self.norm(self.fc(batch + 0.01 * torch.randn_like(batch)))))


@pytest.mark.parametrize("with_loss", [False, True])
@pytest.mark.parametrize("failing", [False, True])
def test_scan_restores_everything(with_loss: bool, failing: bool) -> None:
    torch.manual_seed(0)
    model = Noisy()
    model.train()
    model.norm.eval()
    model.fc.bias.grad = torch.full((4,), 3.0)
    model.fc.weight.requires_grad_(True)
    modes = {name: module.training for name, module in model.named_modules()}
    state = {k: v.clone() for k, v in model.state_dict().items()}
    hooks, everywhere = hooks_of(model), global_hooks()
    grads = {k: p.grad for k, p in model.named_parameters()}
    rng = torch.get_rng_state()

    def batches() -> Iterator[Tensor]:
        yield x(8)
        yield x(5)
        if failing:
            raise KeyError("mine")

    loss = (lambda output, batch: output.square().sum()) if with_loss else None
    if failing:
        with pytest.raises(KeyError, match="mine"):
            harness.scan(model, batches(), loss=loss)
    else:
        assert set(harness.scan(model, batches(), loss=loss).units.n) == {13}
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert hooks_of(model) == hooks
    assert global_hooks() == everywhere
    assert torch.equal(torch.get_rng_state(), rng)
    for name, parameter in model.named_parameters():
        assert parameter.grad is grads[name]
        assert parameter.requires_grad
    assert model.fc.bias.grad is not None
    assert model.fc.bias.grad.tolist() == [3.0] * 4
    assert torch.is_grad_enabled()


def test_scan_is_in_evaluation_mode() -> None:
    """Dropout is off and BatchNorm uses its running statistics."""
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.9), nn.ReLU())
    batch = x(40) + 5
    with torch.no_grad():
        z = copy.deepcopy(model).eval()[:3](batch)
    assert harness.scan(model, batch).units.active.tolist() == (z > 0).sum(0).tolist()


def test_scan_with_a_loss_sees_starvation() -> None:
    torch.manual_seed(0)
    model = mlp()
    kill(model[2], *range(8))
    batches = [(x(20, columns=6), torch.zeros(20, 3)), (x(20, seed=1, columns=6), torch.zeros(20, 3))]
    without = harness.scan(model, batches).units
    assert without.grad_rms.isna().all()
    assert "starved" not in set(without.state)
    seen: list[Any] = []

    def loss(output: Tensor, batch: Any) -> Tensor:
        seen.append(batch)
        return F.mse_loss(output, batch[1])

    units = harness.scan(model, batches, loss=loss).units
    assert [type(batch) for batch in seen] == [tuple, tuple]
    first = units[units.site == "1"].set_index("unit")
    assert set(first.state[[2, 7]]) == {"dead"}
    assert set(first.state.drop([2, 7])) == {"starved"}
    assert set(first.grad_rms) == {0.0}


def test_scan_under_no_grad_with_a_loss() -> None:
    """loss= asks for gradients, whatever the mode around it."""
    model = small()
    with torch.no_grad():
        units = harness.scan(model, x(), loss=lambda output, batch: output.square().sum()).units
    assert units.grad_rms.notna().all()


def test_dead_fraction_is_weighted_by_units() -> None:
    model: Any = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 8), nn.ReLU())
    torch.manual_seed(0)
    kill(model[0], 0)
    kill(model[2], 0, 1)
    with torch.no_grad():
        for layer, live in ((model[0], 1), (model[2], slice(2, 8))):
            layer.bias[live] = 10
    report = harness.scan(model, x())
    assert report.dead_fraction == pytest.approx(3 / 10)
    report.raise_if(dead=0.3)
    with pytest.raises(harness.DeadUnitsError):
        report.raise_if(dead=0.29)
    assert "dead" in str(report)
    assert list(report.summary.site) == ["1", "3"]
    assert report.summary.dead.tolist() == [1, 2]


def test_raise_if_is_strictly_greater() -> None:
    report = harness.scan(small(), x(1000))
    assert report.dead_fraction == 0.25
    report.raise_if(dead=0.25)
    with pytest.raises(harness.DeadUnitsError):
        report.raise_if(dead=0.2499)
    assert issubclass(harness.DeadUnitsError, Exception)


@pytest.mark.parametrize("limit", [0.0, 0.5, 1.0])
def test_nothing_observed_is_never_fine(limit: float) -> None:
    class Only(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.unused = nn.Linear(3, 2), nn.ReLU()

        def forward(self, batch: Tensor) -> Tensor:
            return self.fc(batch)

    with pytest.warns(UserWarning, match="unused"):
        report = harness.scan(Only(), x())
    assert np.isnan(report.dead_fraction)
    with pytest.raises(harness.DeadUnitsError):
        report.raise_if(dead=limit)


def test_unobserved_sites_do_not_dilute() -> None:
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match="unused"):
        report = harness.scan(NeverCalled(), x(500, columns=6))
    assert report.dead_fraction == pytest.approx(1 / 5)


@pytest.mark.parametrize(
    ("model", "batches", "kind"),
    [
        (None, x(), TypeError),
        (lambda batch: batch, x(), TypeError),
        (small(), [], ValueError),
        (small(), iter(()), ValueError),
        (small(), [3], TypeError),
        (small(), 3, TypeError),
        (small(), None, TypeError),
        (small(), [()], (TypeError, ValueError)),
    ],
)
def test_scan_arguments(model: Any, batches: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        harness.scan(model, batches)


def test_the_model_in_a_scan_may_be_recorded_too() -> None:
    """A scan inside a recorded training is no training input."""
    model = small()
    with harness.Recorder(model, census_every=None) as recorder:
        model(x(4))
        assert set(harness.scan(model, x(9)).units.n) == {9}
        model(x(2))
        assert set(recorder.census().n) == {6}
