"""What was not counted at the end is no statement about the end."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import harness
from harness.detector.verdict import verdict


def trained(probe: torch.Tensor | None) -> harness.Recorder:
    """A training whose model goes into evaluation mode at step 10, and never back."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    options: dict[str, Any] = {"evidence": True, "census_every": 20, "probe": probe}
    with harness.Recorder(model, optimizer=optimizer, **options) as recorder:
        for step in range(60):
            if step == 10:
                model.eval()
            x = torch.randn(16, 8)
            loss = nn.functional.cross_entropy(model(x), (x[:, 0] > 0).long())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            recorder.step(loss=loss)
    return recorder


@pytest.mark.parametrize("probe", [None, torch.randn(64, 8)], ids=["stream", "probe"])
def test_evaluation_mode_left_on(probe: torch.Tensor | None) -> None:
    with pytest.warns(UserWarning, match="in steps 21 to 40: .*model.train") as said:
        recorder = trained(probe)
    assert len(said) == 1
    for text in (str(recorder.diagnose()), verdict(recorder.history()).text):
        if probe is not None:  # it shows the end
            assert "at the end" in text
            assert "in training mode" not in text
        else:
            assert "0 of 16 units dead at step 20" in text
            assert "Nothing was counted after step 20, up to step 60" in text
            assert "at the end" not in text
