"""Lazy layers get their first values from the training's own first forward, whoever looks on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_trainings import inputs
from torch import Tensor, nn

import harness

X, Y = inputs()


class Lazy(nn.Module):
    """Draws its parameters in the first forward, and numbers in each."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.out = nn.LazyLinear(16), nn.LazyLinear(16), nn.LazyLinear(5)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.relu(self.two(self.drop(torch.relu(self.one(x))))))


def trained(look: Any) -> tuple[Tensor, harness.Recorder | None]:
    torch.manual_seed(0)
    model = Lazy()
    optimizer = torch.optim.SGD(model.parameters(), lr=3.0)
    recorder = look(model, optimizer)
    if recorder is not None:
        recorder.attach()
    for _ in range(10):
        rows = torch.randint(0, 4000, (64,))
        loss = nn.functional.cross_entropy(model(X[rows]), Y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if recorder is not None:
            recorder.step(loss=loss)
    if recorder is not None:
        recorder.detach()
    return torch.cat([p.detach().flatten() for p in model.parameters()]), recorder


def with_probe(model: nn.Module, optimizer: Any) -> harness.Recorder:
    return harness.Recorder(model, optimizer=optimizer, census_every=5, evidence=True, probe=X[:50])


@pytest.mark.filterwarnings("ignore:the probe has no census before the first step")
def test_nothing_changes_the_numbers_that_they_draw() -> None:
    bare, _ = trained(lambda *_: None)
    assert torch.equal(bare, trained(with_probe)[0])
    assert torch.equal(bare, trained(lambda model, _: harness.scan(model, X[:50]) and None)[0])


def test_the_missing_census_is_told_of_and_the_evidence_is_complete() -> None:
    with pytest.warns(UserWarning, match="no census before the first step: the model has lazy parameters"):
        _, recorder = trained(with_probe)
    assert recorder is not None
    assert recorder.history().query("evidence == 'probe'")["step"].min() == 5
    evidence = recorder.evidence()
    assert not evidence.error
    assert evidence.units["spread"].notna().all()
    assert evidence.steps["written_norm"].eq(0).all()


def test_a_scan_leaves_a_model_lazy() -> None:
    model = Lazy()
    assert harness.scan(model, X[:50]).units["n"].eq(50).all()
    assert isinstance(model.one, nn.LazyLinear)
