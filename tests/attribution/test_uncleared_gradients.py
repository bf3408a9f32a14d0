"""Gradients that nobody clears are found, and no other way of clearing them is mistaken for that."""

from __future__ import annotations

import pytest
import torch
from small_trainings import inputs, plain
from torch import nn

import harness

X, Y = inputs()


def trained(clear: str, *, steps: int = 150, lr: float = 0.1) -> harness.Recorder:
    torch.manual_seed(0)
    model = plain()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    with harness.Recorder(model, optimizer=optimizer, census_every=10, evidence=True) as recorder:
        loss = torch.zeros(())
        for _ in range(steps):
            for _ in range(2 if clear == "accumulate" else 1):
                rows = torch.randint(0, 4000, (64,))
                loss = nn.functional.cross_entropy(model(X[rows]), Y[rows])
                if clear in ("to None", "to 0"):
                    optimizer.zero_grad(set_to_none=clear == "to None")
                loss.backward()
            if clear != "never":
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)  # writes into the gradients
            optimizer.step()
            if clear in ("accumulate", "after"):
                optimizer.zero_grad(set_to_none=False)
            if clear == "by hand":
                for parameter in model.parameters():
                    assert parameter.grad is not None
                    parameter.grad.zero_()
            recorder.step(loss=loss)
    return recorder


def test_gradients_that_nobody_clears_are_named() -> None:
    found = trained("never").diagnose()
    assert found.label == "step_size", found
    assert "as nothing clears them" in found.cause
    assert found.next_step.startswith("Clear the gradients in each step")


@pytest.mark.parametrize("clear", ["to None", "to 0", "after", "by hand", "accumulate"])
def test_cleared_gradients_are_not(clear: str) -> None:
    assert not trained(clear, steps=8).evidence().steps.attrs["uncleared"]


def test_two_networks_that_share_a_loss() -> None:
    """The discriminator's gradients of the generator's pass are cleared before its own."""
    torch.manual_seed(0)
    model = nn.ModuleDict({"g": nn.Sequential(nn.Linear(4, 20), nn.ReLU()), "d": plain()})
    ours, theirs = (torch.optim.SGD(model[name].parameters(), lr=0.01) for name in ("g", "d"))
    with harness.Recorder(model, optimizer=[ours, theirs], census_every=4, evidence=True) as recorder:
        for _ in range(8):
            theirs.zero_grad(set_to_none=False)
            (
                model["d"](X[:32]).mean() - model["d"](model["g"](torch.randn(32, 4)).detach()).mean()
            ).backward()
            theirs.step()
            ours.zero_grad(set_to_none=False)
            model["d"](model["g"](torch.randn(32, 4))).mean().backward()
            ours.step()
            recorder.step()
    assert not recorder.evidence().steps.attrs["uncleared"]
