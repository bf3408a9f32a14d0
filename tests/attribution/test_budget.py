"""A diagnosis comes in time, on fewer inputs if need be, and says how far it is."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import harness
from harness import progress
from harness.attribution import budget, collector
from harness.attribution.evidence import FACTORS


def mlp() -> Any:
    layers = [nn.Linear(20, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(48, 5))


def convolution() -> Any:
    front = [nn.Unflatten(1, (1, 20)), nn.Conv1d(1, 12, 3), nn.BatchNorm1d(12), nn.ReLU()]
    return nn.Sequential(*front, nn.Flatten(), nn.Linear(216, 5))


def transformer() -> Any:
    layer = nn.TransformerEncoderLayer(20, 2, 40, dropout=0.0, batch_first=True)
    return nn.Sequential(nn.Unflatten(1, (1, 20)), layer, nn.Flatten(), nn.Linear(20, 5))


def trained(model: Any) -> harness.Recorder:
    for name, value in model.named_parameters():
        if name.endswith("bias") and value.ndim == 1 and "norm" not in name and "attn" not in name:
            with torch.no_grad():
                value[: len(value) // 2] = -30.0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    draw = torch.Generator().manual_seed(0)
    with harness.Recorder(model, optimizer=optimizer, census_every=10, evidence=True) as recorder:
        for _ in range(20):
            x = torch.randn(128, 20, generator=draw)
            loss = nn.functional.cross_entropy(model(x), torch.randint(0, 5, (128,), generator=draw))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            recorder.step(loss=loss)
    return recorder


@pytest.mark.parametrize("make", [mlp, convolution, transformer])
def test_on_fewer_inputs_the_answer_is_the_same_and_says_so(make: Any, monkeypatch: Any) -> None:
    torch.manual_seed(0)
    recorder = trained(make())
    whole = recorder.diagnose()
    assert "To answer in time" not in whole.text
    monkeypatch.setattr(budget, "SECONDS", 0.0)
    few = recorder.diagnose()
    assert "To answer in time, births and shares rest on 32 inputs of each time." in few.text
    assert few.label == whole.label == "bias_init"
    units = recorder.evidence().units.dropna(subset=["rate_now"])
    change = units["rate_now"] - units["rate_then"]
    assert np.abs(units[list(FACTORS)].sum(axis=1) - change).max() < 1e-12


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(20, 20)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.layer(x) + x)


def test_births_are_told_of_sites_for_whose_shares_no_time_is_left(monkeypatch: Any) -> None:
    torch.manual_seed(0)
    recorder = trained(nn.Sequential(Residual(), Residual(), Residual(), nn.Linear(20, 5)))
    assert recorder.evidence().units["rate_now"].notna().all()
    monkeypatch.setattr(collector, "SOME", 10**9)
    units = recorder.evidence().units
    assert units["rate_now"].isna().all()
    assert len(units) == 60
    assert units["spread"].notna().all()
    found = recorder.diagnose()
    assert found.label == "bias_init"
    assert "30 by their bias" in found.text


def test_progress_is_said_on_a_terminal_where_it_takes_long(monkeypatch: Any, capsys: Any) -> None:
    torch.manual_seed(0)
    recorder = trained(mlp())
    recorder.diagnose()
    assert not capsys.readouterr().err
    monkeypatch.setattr(progress, "QUIET", 0.0)
    recorder.diagnose()
    assert not capsys.readouterr().err  # a file or a notebook
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    recorder.diagnose()
    assert "diagnose: 1 of 9 passes" in capsys.readouterr().err


def healthy(every: int = 10) -> harness.Recorder:
    """No unit dies, and all of them learn."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with harness.Recorder(model, optimizer=optimizer, census_every=every, evidence=True) as recorder:
        for _ in range(20):
            loss = nn.functional.cross_entropy(model(torch.randn(128, 20)), torch.randint(0, 5, (128,)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            recorder.step(loss=loss)
    return recorder


def test_where_every_unit_lives_the_network_is_not_run_again(monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(progress, "QUIET", 0.0)
    found = healthy().diagnose()
    assert found.text.endswith("Nothing to explain: no unit is dead.")
    assert found.label == "none"
    assert "diagnose:" not in capsys.readouterr().err


def test_what_a_single_census_cannot_show_is_said() -> None:
    said = "There is one census, over all steps up to 20: a unit that opened early and died on the way counts"
    assert said in healthy(every=100).diagnose().text
    assert said not in healthy().diagnose().text


def test_a_report_keeps_the_evidence_of_the_diagnosis(monkeypatch: Any, capsys: Any, tmp_path: Any) -> None:
    torch.manual_seed(0)
    recorder = trained(mlp())
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(progress, "QUIET", 0.0)
    recorder.diagnose()
    assert "diagnose:" in capsys.readouterr().err
    page = recorder.report(tmp_path / "dead.html")
    assert "bias_init" in page.read_text(encoding="utf-8")
    assert "diagnose:" not in capsys.readouterr().err
