"""Windows that go on after a checkpoint."""

from __future__ import annotations

import io
import pickle

import pytest
import torch
from small_nets import sgd, small, train_step, x
from torch import nn

import harness
from harness.selftest.compare import assert_same_census


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
