"""Pre-hooks of others on an activation: what is counted is what the activation is called on."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import harness


@pytest.mark.parametrize("when", ["before", "inside", "later"])
def test_a_pre_hook_that_replaces_the_pre_activation_is_seen_whenever_it_is_registered(when: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))

    def register() -> None:
        model[1].register_forward_pre_hook(lambda module, args: (args[0] - 100.0,))

    if when == "before":
        register()
    with harness.Recorder(model, census_every=16) as recorder:
        if when == "inside":
            register()
        for step in range(64):
            if when == "later" and step == 20:
                register()
            model(torch.randn(5, 4)).sum().backward()
            recorder.step()
    history = recorder.history()
    last = history[history["step"] == 64]
    assert last["n"].eq(5 * 16).all()
    assert last["state"].eq("dead").all()
    assert len(model[1]._forward_pre_hooks) == 1  # theirs
