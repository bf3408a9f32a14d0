"""What the callbacks share."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from harness.integrations.watch import Watch


def net(units: int = 8) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, units), nn.Tanh(), nn.Linear(units, units), nn.ReLU())


def test_no_number_is_not_none_dead() -> None:
    class Alone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(4, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.lstm(x)[0]

    watch, model = Watch(census_every=1, per_site=True), Alone()
    watch.start(model, [], steps=0)
    model(torch.rand(2, 3, 4))
    with pytest.warns(UserWarning, match="unobserved"):
        assert watch.step() == {}
    watch.finish()
    assert "Nothing was observed" in watch.words()


def test_without_a_census_there_is_no_verdict() -> None:
    watch = Watch(census_every=None)
    assert watch.state_dict() == {}
    assert watch.history().empty
    watch.start(nn.Sequential(nn.Linear(4, 8)), [], steps=0, name="'net'")
    assert watch.finish() is None
    assert watch.verdict is None
    assert watch.words().startswith("No verdict: no forward of 'net' in training mode was seen")


def test_another_number_of_processes_begins_new_windows() -> None:
    model, x = net(), torch.rand(16, 4)
    watch = Watch(census_every=2)
    watch.start(model, [], steps=0)
    for _ in range(3):
        model(x)
        watch.step()
    state = watch.state_dict()
    watch.stop()
    for windows, n in ((state["windows"], 32), (state["windows"] * 2, 16)):
        other = Watch(census_every=2)
        other.load_state_dict(state | {"windows": windows})
        assert other.state_dict()["steps"] == 3  # not lost if a checkpoint is written before the start
        other.start(model, [], steps=3)
        model(x)
        other.step()
        assert other.history()[["step", "n"]].drop_duplicates().to_numpy().tolist() == [[2, 32], [4, n]]
        other.stop()


def test_arguments() -> None:
    with pytest.raises(ValueError, match="healthy: expected a share"):
        Watch(healthy=-1)
    with pytest.raises(ValueError, match="gate_eps"):
        Watch(gate_eps=2)
    with pytest.raises(ValueError, match="expected the keys steps, windows, history, but got a"):
        Watch().load_state_dict({"a": 1})
