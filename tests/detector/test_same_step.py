"""Two censuses of one step: a census by hand after the last one that was due says no more about a unit."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from torch import nn

import harness
from harness.detector.verdict import last_census, site_table, verdict

X = torch.randn(20, 4, generator=torch.Generator().manual_seed(1))


def trained(probe: torch.Tensor | None, *, again: int) -> harness.Recorder:
    """A recorder of 10 steps, with censuses by hand after the last."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU())
    with torch.no_grad():
        model[0].bias[:3] = -50.0  # type: ignore[index]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    recorder = harness.Recorder(model, optimizer=optimizer, census_every=5, probe=probe, evidence=True)
    with recorder:
        for _ in range(10):
            optimizer.zero_grad()
            model(X).sum().backward()
            optimizer.step()
            recorder.step()
        for _ in range(again):
            recorder.census()
    return recorder


@pytest.mark.parametrize("probe", [None, X])
def test_it_changes_no_answer(probe: torch.Tensor | None) -> None:
    once, thrice = trained(probe, again=0), trained(probe, again=2)
    before, after = once.history(), thrice.history()
    assert len(after) > len(before)
    assert verdict(after) == verdict(before)
    counts = ["units", "n", "dead", "active", "unobserved", "born_dead", "died"]
    assert site_table(after)[counts].equals(site_table(before)[counts])
    assert thrice.diagnose().text == once.diagnose().text


def test_the_last_that_says_something_about_a_unit_is_taken() -> None:
    states = {0: ["dead", "active", "unobserved"], 1: ["active", "unobserved", "unobserved"]}
    rows = [
        {"evidence": "stream", "step": 7, "site": "a", "unit": unit, "state": state, "n": turn}
        for turn in range(3)
        for unit, given in states.items()
        for state in given[turn : turn + 1]
    ]
    last = last_census(pd.DataFrame(rows))
    assert last[["unit", "state", "n"]].to_numpy().tolist() == [[1, "active", 0], [0, "active", 1]]
