"""A model saved while it is observed carries nothing of this package along."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import harness


@pytest.mark.parametrize("evidence", [False, True])
@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("copied", [False, True])
def test_a_saved_model(tmp_path: Path, evidence: bool, watched: bool, copied: bool) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    x = torch.randn(8, 4)
    options: dict[str, Any] = {"optimizer": optimizer, "evidence": evidence, "census_every": 5}
    with harness.watch(model, **options) if watched else harness.Recorder(model, **options) as recorder:
        for step in range(12):
            model(x).square().mean().backward()
            optimizer.step()
            if not watched:
                recorder.step()
            if step == 10:
                saved = copy.deepcopy(model) if copied else model
                torch.save(saved, tmp_path / "model.pt")
                assert b"harness" not in (tmp_path / "model.pt").read_bytes()
                assert b"harness" not in pickle.dumps(copy.deepcopy(optimizer))
                before = model(x)
                recorder.census()
                twin = torch.load(tmp_path / "model.pt", weights_only=False)
                assert torch.equal(twin(x), before)
                n = recorder.census().n.max()
                assert n == 0  # forwards of the twin are not the model's
    assert recorder.steps == 12


@pytest.mark.parametrize("watched", [False, True])
def test_a_model_that_holds_its_recorder(watched: bool) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    with harness.watch(model) if watched else harness.Recorder(model) as recorder:
        model.recorder = recorder  # pyright: ignore
        model(torch.randn(8, 4)).sum().backward()
        recorder.step()
        copies: list[Any] = [copy.deepcopy(model).recorder, pickle.loads(pickle.dumps(model)).recorder]
        for copied in (*copies, copy.copy(recorder)):
            with pytest.raises(AttributeError, match="copy of a Recorder"):
                copied.step()
        assert recorder.census().n.max() == 8
