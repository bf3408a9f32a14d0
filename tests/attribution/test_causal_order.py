"""What came before cannot be blamed on what came after, nor anything on a training that had ended."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import harness
from harness.attribution.baseline import written_share

Write = Callable[[int, nn.Linear], object]


def trained(
    write: Write, steps: int = 60, bias: float = 0.0, probe: Tensor | None = None
) -> harness.Recorder:
    """A training in which somebody writes into the first layer after each step."""
    torch.manual_seed(0)
    layer = nn.Linear(8, 32)
    nn.init.constant_(layer.bias, bias)
    model = nn.Sequential(layer, nn.ReLU(), nn.Linear(32, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    draw = torch.Generator().manual_seed(1)
    probe = torch.randn(128, 8, generator=draw) if probe is None else probe
    with harness.Recorder(
        model, optimizer=optimizer, census_every=10, probe=probe, evidence=True
    ) as recorder:
        for step in range(1, steps + 1):
            loss = (model(torch.randn(64, 8, generator=draw)) - 1).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                write(step, layer)
            recorder.step(loss=loss)
    return recorder


def closed(layer: nn.Linear, units: slice, level: float = -50.0) -> None:
    layer.bias[units] = level


def test_a_write_into_dead_units_is_not_what_killed_them() -> None:
    def write(step: int, layer: nn.Linear) -> None:
        if step == 25:
            closed(layer, slice(0, 16))
        if step == 45:  # what is dead is drawn anew, and stays so
            layer.weight[:16] = torch.randn(16, 8)
            closed(layer, slice(0, 16), -20.0)

    found = trained(write).diagnose()
    assert found.label == "surgery"
    assert found.events["step"].tolist() == [26, 46]
    assert found.events["deaths"].tolist() == [16, 0]
    assert "between step 25 and step 26: parameters were overwritten" in found.text
    assert "16 of 16 dated deaths came at or after it, of units that lived before it" in found.text


def test_units_that_were_dead_before_are_no_reason_to_blame_a_write() -> None:
    def write(step: int, layer: nn.Linear) -> None:
        if step < 30:
            layer.bias[:16] -= 0.5
        if step == 45:
            layer.weight[:16] = torch.randn(16, 8)
            layer.bias[:16] = 0.5  # they live for a while
        if step == 47:
            closed(layer, slice(0, 16))

    found = trained(write).diagnose()
    late = found.events[found.events["step"] >= 40]
    assert len(late)
    assert (late["deaths"] == 0).all()


def test_nothing_is_dated_after_a_divergence() -> None:
    def write(step: int, layer: nn.Linear) -> None:
        if step == 15:
            closed(layer, slice(0, 8))
        if step == 40:
            layer.weight[8:] = 1e30  # the next step ends the training
        if step in (55, 58):
            layer.weight.fill_(math.nan)

    found = trained(write, steps=80).diagnose()
    assert found.events["step"].tolist() == [16, 41]
    assert found.units["died_at"].max() <= 16
    assert set(found.events["label"]) == {"surgery"}


def test_a_write_that_ends_the_training_in_the_same_step_has_its_size() -> None:
    written, weight = [0.0] * 20 + [12.0], [10.0] * 20 + [math.nan]
    share = written_share(torch.tensor(written).numpy(), torch.tensor(weight).numpy())
    assert share[-1] == pytest.approx(1.2)


def test_units_that_no_input_opens_are_not_said_to_open_in_training() -> None:
    def nothing(step: int, layer: nn.Linear) -> None:
        if step == 1:
            closed(layer, slice(0, 16))
            layer.weight[16:] = 1.0
            layer.bias[16:] = -3.0

    far = -5 * torch.ones(128, 8)  # opens none of the others, which the training's inputs open
    found = trained(nothing, steps=40, probe=far).diagnose()
    assert len(found.units) == 32
    assert "the training's own inputs open these units" not in found.text
    assert "16 of the dead open on the latest inputs of the training" in found.text
