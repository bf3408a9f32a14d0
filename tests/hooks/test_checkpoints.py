"""Checkpointed parts: gradients are those of the same part without one, and so is what stops them."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import harness
from harness.selftest.machinery import CheckpointedFunction


class Block(nn.Module):
    """With its activations as functions; all units of the second are dead."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)
        nn.init.constant_(self.b.bias, -9.0)

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        return F.relu(self.b(F.relu(self.a(h) + F.relu(e))))


class Net(nn.Module):
    """An embedding is read in and out of the checkpoint, as in a U-Net for diffusion."""

    def __init__(self, reentrant: bool | None) -> None:
        super().__init__()
        self.first, self.embedding, self.last = nn.Linear(4, 8), nn.Linear(4, 8), nn.Linear(8, 1)
        self.block, self.reentrant = Block(), reentrant

    def forward(self, x: Tensor) -> Tensor:
        e = self.embedding(x)
        h = F.relu(self.first(x)) + F.relu(e)
        if self.reentrant is None:
            return self.last(h + self.block(h, e))
        return self.last(h + checkpoint(self.block, h, e, use_reentrant=self.reentrant))


def trained(reentrant: bool | None, *, diagnosed: bool) -> tuple[Any, list[Tensor]]:
    """The recorder, and all gradients that the parameters have after the last step."""
    torch.manual_seed(0)
    model = Net(reentrant)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with harness.Recorder(model, optimizer=optimizer, census_every=5, evidence=True) as recorder:
        for step in range(20):
            optimizer.zero_grad()
            loss = model(torch.randn(16, 4)).square().mean()
            loss.backward()
            if diagnosed and step == 12:
                recorder.diagnose()  # must not touch the gradients
            optimizer.step()
            recorder.step(loss=loss)
    return recorder, [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_units_have_the_gradients_of_any_and_the_same_diagnosis(reentrant: bool) -> None:
    plain, _ = trained(None, diagnosed=False)
    recorder, gradients = trained(reentrant, diagnosed=True)
    columns = ["site", "unit", "n", "active", "state"]
    wanted, found = plain.census(), recorder.census()
    assert set(found.loc[found["site"].eq("block:relu#1"), "state"]) <= {"starved", "dead"}
    assert found[columns].equals(wanted[columns])
    assert found["grad_rms"].tolist() == pytest.approx(wanted["grad_rms"].tolist(), rel=1e-5)
    text = recorder.diagnose().text
    assert text == plain.diagnose().text
    assert "are dead, and all their gradient comes through there" in text
    _, undisturbed = trained(reentrant, diagnosed=False)
    assert all(torch.equal(a, b) for a, b in zip(gradients, undisturbed, strict=True))


def test_what_runs_again_out_of_sight_is_said() -> None:
    model = CheckpointedFunction(True)
    out_of_sight = "grad_rms is not known: it runs without a graph"
    with harness.Recorder(model, census_every=None) as recorder:
        for _ in range(3):
            model(torch.randn(8, 6)).square().mean().backward()
        with pytest.warns(UserWarning, match=out_of_sight) as said:
            census = recorder.census()
    census = census.set_index("site")
    assert [str(one.message).split(":")[1] for one in said] == ["relu#1"]
    assert census["grad_rms"][":relu"].notna().all()
    assert census["grad_rms"][":relu#1"].isna().all()


def test_a_part_under_no_grad_is_nothing_to_warn_of() -> None:
    class Frozen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part, self.last = nn.Sequential(nn.Linear(4, 8), nn.ReLU()), nn.Linear(8, 1)

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                h = self.part(x)
            return self.last(h)

    model = Frozen()
    with warnings.catch_warnings(), harness.Recorder(model, census_every=None) as recorder:
        warnings.simplefilter("error")
        for _ in range(3):
            model(torch.randn(8, 4)).square().mean().backward()
        assert recorder.census()["grad_rms"].isna().all()
