"""Attached, detached, side by side: nothing of a Recorder stays in a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from small_nets import global_hooks, hooks_of, optimizer_hooks, sgd, small, train_step, x
from torch import nn

import harness
from harness.selftest.attention import Encoder
from harness.selftest.axes import ConvNet
from harness.selftest.forms import Functional
from harness.selftest.machinery import Checkpointed
from harness.selftest.sharing import Mixed


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
        outer.step()
        inner.step()
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
