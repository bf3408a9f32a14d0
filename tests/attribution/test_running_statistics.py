"""Held-out inputs against the training's: what the running statistics of norms do in evaluation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_trainings import stepped
from torch import Tensor, nn

import harness


def shifted(step: int) -> Tensor:
    """Inputs far off centre, which a batch's own statistics put right and untrained ones do not."""
    return torch.randn(64, 12, generator=torch.Generator().manual_seed(step)) - 6.0


def mlp(**options: Any) -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs in ((12, 32), (32, 32)):
        layers += [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs, **options), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(32, 3))


def slow_momentum() -> nn.Module:
    model: Any = mlp(momentum=1e-6)
    with torch.no_grad():
        model[0].weight.abs_()
        model[3].bias.fill_(-30.0)
    return model


def convolution() -> nn.Module:
    norm = nn.BatchNorm1d(8, momentum=1e-6)
    conv = nn.Conv1d(1, 8, 3)
    nn.init.constant_(conv.weight, 0.5)
    return nn.Sequential(nn.Unflatten(1, (1, 12)), conv, norm, nn.ReLU(), nn.Flatten(), nn.Linear(80, 3))


def overwritten() -> nn.Module:
    model: Any = mlp(momentum=0.0)
    for place in (1, 4):
        model[place].running_mean.fill_(100.0)
    return model


def trained(model: nn.Module, probe: Tensor, x: Any = shifted) -> harness.Recorder:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    draw = torch.Generator().manual_seed(0)
    with harness.Recorder(
        model, optimizer=optimizer, census_every=10, probe=probe, evidence=True
    ) as recorder:
        for step in range(30):
            batch = x(step)
            loss = nn.functional.cross_entropy(
                model(batch), torch.randint(0, 3, (len(batch),), generator=draw)
            )
            stepped(recorder, optimizer, loss)
    return recorder


@pytest.mark.parametrize("make", [slow_momentum, convolution, overwritten])
def test_statistics_that_do_not_fit_are_named(make: Any) -> None:
    torch.manual_seed(0)
    recorder = trained(make(), shifted(99).repeat(8, 1))
    last = recorder.census()
    assert last.loc[last["evidence"].eq("probe"), "state"].eq("dead").mean() > 0.4
    assert last.loc[last["evidence"].eq("stream"), "state"].eq("dead").mean() < 0.1
    found = recorder.diagnose()
    assert found.label == "norm_stats"
    assert "open on the latest inputs of the training, in training mode" in found.text
    assert "with the running statistics of the norms that evaluation uses" in found.text


def test_held_out_inputs_that_differ_are_no_norms_fault() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 3))
    with torch.no_grad():
        model[0].weight.abs_()  # type: ignore[operator]
        model[0].bias.zero_()  # type: ignore[operator]
    found = trained(model, shifted(99).repeat(8, 1), x=lambda step: shifted(step) + 12.0).diagnose()
    assert found.label == "unknown"
    assert "the training's own inputs open these units, the held-out ones do not" in found.text


def test_statistics_that_fit_are_not_blamed() -> None:
    torch.manual_seed(0)
    found = trained(mlp(), shifted(99).repeat(8, 1)).diagnose()
    assert found.label == "none"
    assert "running statistics" not in found.text


def test_a_norm_that_does_not_norm_what_it_hands_on_is_named() -> None:
    """In evaluation mode from the start, its first statistics let large inputs through."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.BatchNorm1d(8), nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with harness.Recorder(model, optimizer=optimizer, census_every=5, evidence=True) as recorder:
        for _ in range(60):
            model[0].eval()
            x = 30 + 3 * torch.randn(48, 8)
            loss = nn.functional.cross_entropy(model(x), (x[:, 0] > 30).long())
            stepped(recorder, optimizer, loss)
    found = recorder.diagnose()
    assert found.label == "norm_stats", found
