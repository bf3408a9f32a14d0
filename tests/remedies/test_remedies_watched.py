"""Remedies of a model that is watched: they act as without a Recorder, and their passes count nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

import harness
from harness.remedies import bias_lift, leaky_swap, redo

X = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))
ACTS: dict[str, Callable[[nn.Module, Optimizer, Tensor], list[harness.remedies.RemedyEvent]]] = {
    "redo": lambda model, optimizer, x: redo(model, optimizer, x, generator=torch.Generator().manual_seed(1)),
    "bias_lift": bias_lift,
    "leaky_swap": lambda model, optimizer, x: leaky_swap(model, x),
}


def trained(name: str, *, watched: bool, observe: str = "train") -> tuple[list[int], Tensor, list[int]]:
    """Units that were acted on, the parameters afterwards, and n of every census."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 2))
    nn.init.constant_(model[0].bias, -4.0)  # type: ignore[arg-type]
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    recorder = harness.Recorder(model, optimizer=optimizer, census_every=3, observe=observe)
    units: list[int] = []
    if watched:
        recorder.__enter__()
    for step in range(6):
        model(X[:32]).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        if step == 3:
            units = [event.units for event in ACTS[name](model, optimizer, X)]
        if watched:
            recorder.step()
    counts: list[int] = []
    if watched:
        recorder.__exit__(None, None, None)
        history = recorder.history()
        counts = history[history["site"].eq("1")].groupby("step")["n"].first().tolist()
    return units, torch.cat([p.detach().flatten() for p in model.parameters()]), counts


@pytest.mark.parametrize("observe", ["train", "all"])
@pytest.mark.parametrize("name", ["redo", "bias_lift"])
def test_a_remedy_acts_in_a_recorders_block_and_its_passes_are_not_counted(name: str, observe: str) -> None:
    units, parameters, counts = trained(name, watched=True, observe=observe)
    alone, expected, _ = trained(name, watched=False)
    assert units == alone != []
    assert torch.equal(parameters, expected)
    assert counts == [96, 96]


def test_a_swap_is_seen_and_its_passes_are_not_counted() -> None:
    units, parameters, counts = trained("leaky_swap", watched=True)
    alone, expected, _ = trained("leaky_swap", watched=False)
    assert units == alone != []
    assert torch.equal(parameters, expected)
    assert counts[0] == 96
