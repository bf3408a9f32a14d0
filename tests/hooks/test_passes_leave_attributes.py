"""Passes of scans and probes leave what a forward writes into attributes as it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import harness


class Stateful(nn.Module):
    """Counts its calls, keeps a hidden state and a list of losses, and initialises itself once."""

    def __init__(self, *, makes: bool = False) -> None:
        super().__init__()
        self.layer, self.act, self.last = nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4)
        self.calls, self.losses, self.cache, self.seen = 0, [], {}, set()
        self.scale: float | None = None
        self.makes = makes

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        h = self.act(self.layer(x))
        if self.scale is None:
            self.scale = float(h.detach().mean())
        if self.makes and not hasattr(self, "made"):
            self.made: nn.Module = nn.Linear(8, 8)
        self.hidden = h.detach()
        self.losses.append(h.mean())
        self.cache[len(x)] = self.calls
        self.seen.add(len(x))
        return self.last(h * self.scale)


def state(model: Stateful) -> tuple[Any, ...]:
    hidden = getattr(model, "hidden", None)
    return model.calls, list(model.losses), dict(model.cache), set(model.seen), model.scale, hidden


def test_a_scan_leaves_attributes() -> None:
    torch.manual_seed(0)
    model = Stateful()
    before, losses = state(model), model.losses
    harness.scan(model, torch.randn(16, 4))
    assert state(model) == before
    assert model.losses is losses
    assert not hasattr(model, "hidden")


def trained(*, watched: bool) -> tuple[list[Tensor], list[Any]]:
    torch.manual_seed(0)
    model, probe = Stateful(), torch.randn(16, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = (
        harness.Recorder(model, census_every=3, probe=probe, optimizer=optimizer, evidence=True)
        if watched
        else None
    )
    with recorder or torch.enable_grad():
        for batch in torch.randn(10, 6, 4):
            optimizer.zero_grad()
            loss = model(batch).square().mean() + sum(model.losses[-2:])
            loss.backward()
            optimizer.step()
            model.losses = [one.detach() for one in model.losses]
            if recorder is not None:
                recorder.step(loss=loss)
    return [p.detach() for p in model.parameters()], [
        model.calls,
        model.cache,
        model.seen,
        len(model.losses),
        model.scale,
    ]


def test_a_training_with_such_a_model_is_bit_identical() -> None:
    bare, watched = trained(watched=False), trained(watched=True)
    assert all(torch.equal(a, b) for a, b in zip(bare[0], watched[0], strict=True))
    assert bare[1] == watched[1]


@pytest.mark.parametrize("makes", [True, False])
def test_flags_of_modules_that_a_pass_makes_stay(makes: bool) -> None:
    model = Stateful(makes=makes)
    harness.scan(model, torch.randn(16, 4))
    assert hasattr(model, "made") is makes
    assert model.calls == makes
