"""A forward on tensors without values, as tools for shapes and costs make them, leaves the evidence alone."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import harness

pytestmark = pytest.mark.filterwarnings("ignore:.*without values")


class Pair(nn.Module):
    """Called as a whole, or part by part."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Sequential(nn.Linear(8, 16), nn.ReLU()), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x))


@pytest.mark.parametrize("by_parts", [False, True])
def test_evidence_is_that_of_the_forwards_with_values(by_parts: bool) -> None:
    tables: list[pd.DataFrame] = []
    for fake in (False, True):
        torch.manual_seed(0)
        model = Pair()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with harness.Recorder(model, optimizer=optimizer, evidence=True, census_every=5) as recorder:
            for step in range(1, 13):
                x = torch.randn(4, 8)
                if fake and step in (1, 7):
                    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
                        faked = mode.from_tensor(x)
                        model.second(model.first(faked)) if by_parts else model(faked)
                out = model.second(model.first(x)) if by_parts else model(x)
                loss = out.square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                recorder.step(loss=loss)
        evidence = recorder.evidence()
        assert evidence.error == ""
        tables.append(evidence.steps)
    assert tables[0].equals(tables[1])
