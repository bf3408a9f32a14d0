"""Windows, censuses, and the inputs since a gate was last open."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from small_nets import hooks_of, small, x
from torch import nn

import harness
from harness.selftest.truth import COLUMNS


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
