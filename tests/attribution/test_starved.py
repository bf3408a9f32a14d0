"""Starved units: they are in the verdict, and the diagnosis says what stops their gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from starving import TopK, close, dead_middle, squares, train
from torch import Tensor, nn

import harness
from harness.detector.verdict import verdict


def dead_output() -> nn.Module:
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 1), nn.ReLU())
    close(model[2])
    return model


def dead_convolution() -> nn.Module:
    front = [nn.Unflatten(1, (1, 8)), nn.Conv1d(1, 6, 3), nn.ReLU(), nn.Conv1d(6, 4, 3), nn.BatchNorm1d(4)]
    model = nn.Sequential(*front, nn.ReLU(), nn.Flatten(), nn.Linear(16, 8))
    close(model[4])
    return model


def never_selected() -> nn.Module:
    model = TopK()
    with torch.no_grad():
        model.encode.bias[:6] += 20.0  # these are always among the largest
        model.encode.bias[6:] += 2.0
    return model


def zero_head() -> nn.Module:
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8))
    nn.init.zeros_(model[2].weight)  # type: ignore[arg-type]
    for p in model[2].parameters():
        p.requires_grad_(False)
    return model


@pytest.mark.parametrize(
    ("make", "starved", "says"),
    [
        (dead_output, 32, "32 of them at “1”: the one unit of “3” is dead"),
        (dead_middle, 16, "16 of them at “1”: all 12 units of “3” are dead"),
        (dead_convolution, 6, "6 of them at “2”: all 4 units of “5” are dead"),
        (never_selected, 18, "18 of them at :relu: they are never selected (topk stands behind them)"),
        (zero_head, 16, "16 of them at “1”: the weights behind them are exactly 0"),
    ],
)
def test_what_stops_the_gradient_is_named(make: Callable[[], nn.Module], starved: int, says: str) -> None:
    torch.manual_seed(0)
    recorder = train(make(), squares)
    assert recorder.census()["state"].eq("starved").sum() == starved
    found = recorder.diagnose()
    assert says in found.text
    assert f"{starved} starved on the training stream" in found.text


def test_a_loss_that_gives_no_gradient_is_named() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8))
    recorder = train(model, lambda out, x: (out.abs() - 1e6).clamp(min=0).mean())
    assert "the loss gave no open unit a gradient" in recorder.diagnose().text


def test_what_a_dropout_cut_off_for_a_moment_is_not_the_losss_fault() -> None:
    torch.manual_seed(0)
    layers = [nn.Linear(8, 40), nn.ReLU(), nn.Dropout(0.8), nn.Linear(40, 8)]
    model = nn.Sequential(*layers)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with harness.Recorder(model, optimizer=optimizer, census_every=1, evidence=True) as recorder:
        x = torch.randn(2, 8)
        loss = squares(model(x), x)
        loss.backward()
        optimizer.step()
        recorder.step(loss=loss)
    starved = int(recorder.census()["state"].eq("starved").sum())
    assert starved > 5
    text = recorder.diagnose().text
    assert f"{starved} of them at “1”: on other inputs a gradient comes" in text
    assert "the loss gives" not in text


@pytest.mark.parametrize("probe", [False, True])
def test_a_network_that_one_dead_unit_stops_is_not_healthy(probe: bool) -> None:
    torch.manual_seed(0)
    recorder = train(dead_output(), squares, probe=torch.randn(100, 8) if probe else None)
    found = verdict(recorder.history())
    assert found.starved == 32
    assert found.text.startswith("Most units are dead or starved: 1 of 33 units dead")
    assert "32 starved" in found.text
    diagnosis = recorder.diagnose()
    assert diagnosis.label == "bias_init"
    assert "Nothing to explain" not in diagnosis.text


def test_a_scan_with_a_loss_says_it() -> None:
    torch.manual_seed(0)
    report = harness.scan(dead_output(), torch.randn(50, 8), loss=lambda out, _: out.sum())
    assert "32 starved: their gates open, but no gradient comes back." in str(report)


class TwoBranches(nn.Module):
    """One half of the hidden units feeds a dead layer, the other half weights that are 0."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.act = nn.Linear(8, 20), nn.ReLU()
        self.dead, self.last = nn.Linear(10, 6), nn.Linear(16, 8)
        close(self.dead)
        with torch.no_grad():
            self.last.weight[:, 6:] = 0.0
        self.last.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        a = self.act(self.hidden(x))
        return self.last(torch.cat([torch.relu(self.dead(a[:, :10])), a[:, 10:]], 1))


def test_every_unit_has_its_own_reason() -> None:
    torch.manual_seed(0)
    recorder = train(TwoBranches(), squares)
    text = recorder.diagnose().text
    assert "10 of them at act: all 6 units of :relu are dead" in text
    assert "10 of them at act: the weights behind them are exactly 0" in text
    by = recorder.evidence().units.query("site == 'act'").set_index("unit")["starved_by"]
    assert by.loc[:9].eq(":relu").all()
    assert by.loc[10:].eq("zero weights").all()


@pytest.mark.parametrize("part", ["starvation", "running statistics"])
def test_what_fails_in_the_evaluation_is_said_and_the_rest_stands(part: str, monkeypatch: Any) -> None:
    from harness.attribution import collector

    def fails(*_: Any) -> None:
        raise NotImplementedError("not on this device")

    if part == "starvation":
        monkeypatch.setattr(collector, part, fails)
    monkeypatch.setitem(collector.ALTERNATIVES, "rate_eval", fails)
    torch.manual_seed(0)
    found = train(dead_convolution(), squares).diagnose()
    assert "The evidence is incomplete" in found.text
    assert "NotImplementedError: not on this device" in found.text
    assert found.units["cause"].eq("bias_init").all()


def test_a_loss_that_cannot_be_read_switches_nothing_else_off(monkeypatch: Any) -> None:
    from harness.attribution import loss_path

    def fails(*_: Any) -> None:
        raise RuntimeError("no graph here")

    monkeypatch.setattr(loss_path, "bypassed", fails)
    torch.manual_seed(0)
    found = train(dead_output(), squares).diagnose()
    assert found.label == "bias_init"
    assert "switched off" not in found.text
