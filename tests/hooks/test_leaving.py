"""Leaving the block: which window closes, how it is labelled, and what is said."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import harness
from tests.hooks.small_nets import sgd, small, train_step, x


def forward(model: nn.Module) -> None:
    model(x(3))


def without_graph(model: nn.Module) -> None:
    with torch.no_grad():
        model(x(5))


def critic(model: nn.Module) -> None:
    model(x(7)).sum().backward()


@pytest.mark.parametrize("every", [1, 2, 5, None])
@pytest.mark.parametrize("extra", [forward, without_graph, critic])
def test_a_forward_after_the_last_step_makes_no_census(
    extra: Callable[[Any], None], every: int | None
) -> None:
    model = small()
    optimizer = sgd(model)
    with harness.Recorder(model, optimizer=optimizer, census_every=every) as recorder:
        for _ in range(10):
            train_step(model, optimizer, x())
            recorder.step()
        if every is None:
            recorder.census()
        extra(model)
    history = recorder.history()
    assert history.step.max() == 10
    assert history.groupby("step").ngroups == (10 // every if every else 1)
    assert set(recorder.census().n) == {10 * (every or 10)}


@pytest.mark.parametrize("steps", [1, 3, 4])
def test_a_window_with_a_step_closes(steps: int) -> None:
    model = small()
    optimizer = sgd(model)
    with harness.Recorder(model, optimizer=optimizer, census_every=5) as recorder:
        for _ in range(5 + steps):
            train_step(model, optimizer, x())
            recorder.step()
        model(x(2))
    assert recorder.history().step.unique().tolist() == [5, 5 + steps]
    assert set(recorder.census().n) == {10 * steps + 2}


@pytest.mark.parametrize("forwards", [1, 2, 20])
def test_without_a_step_one_window_closes_and_it_is_said(forwards: int) -> None:
    model = small()
    optimizer = sgd(model)
    recorder = harness.Recorder(model, optimizer=optimizer)
    recorder.__enter__()
    for _ in range(forwards):
        train_step(model, optimizer, x())
    with pytest.warns(UserWarning, match=r"step\(\) was never called"):
        recorder.__exit__(None, None, None)
    assert set(recorder.census().step) == {0}
    assert set(recorder.census().n) == {10 * forwards}


def test_who_only_looks_needs_no_step() -> None:
    model = small().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with harness.Recorder(model, observe="eval") as recorder, torch.no_grad():
            model(x())
    assert set(recorder.census().n) == {10}


@pytest.mark.parametrize("before", [2, 3, 4])
def test_a_resumed_recorder_knows_its_last_census(before: int) -> None:
    model = small()
    optimizer = sgd(model)
    with harness.Recorder(model, optimizer=optimizer, census_every=2) as first:
        for _ in range(before):
            train_step(model, optimizer, x())
            first.step()
        state = first.state_dict()
    resumed = harness.Recorder(model, optimizer=optimizer, census_every=2)
    resumed.load_state_dict(state)
    with resumed:
        model(x(1))
    assert resumed.history().step.tolist() == ([before] * 4 if before % 2 else [])


def test_a_recorder_says_what_it_is() -> None:
    model = small()
    optimizer = sgd(model)
    recorder = harness.Recorder(model, optimizer=optimizer, census_every=2)
    assert repr(recorder) == "<Recorder of Sequential: 0 sites, 0 steps, no census yet>"
    with recorder:
        for _ in range(3):
            train_step(model, optimizer, x())
            recorder.step()
        assert repr(recorder) == "<Recorder of Sequential: 1 site, 3 steps, last census at step 2>"
