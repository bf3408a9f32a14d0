"""Along which axis the units of a site lie."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import harness
from harness.selftest.case import kill


class Odd(nn.Module):
    """No module decides the axis: units are taken from what the user says."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.act = nn.Linear(3, 4), nn.ReLU()

    def forward(self, batch: Tensor) -> Tensor:
        return self.act(self.fc(batch).transpose(1, 2))


def test_axis_can_be_overridden() -> None:
    torch.manual_seed(0)
    model = Odd()
    kill(model.fc, 2)
    units = harness.scan(model, torch.randn(2, 5, 3), axis={"act": 1}).units
    assert units.unit.tolist() == [0, 1, 2, 3]
    assert set(units.n) == {10}
    assert units.state[2] == "dead"
    with harness.Recorder(model, census_every=None, axis={"act": 1}) as recorder:
        model(torch.randn(2, 5, 3))
        assert set(recorder.census().n) == {10}


class Scaled(nn.Module):
    """Elementwise operations keep the axis."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act = nn.Conv1d(2, 4, 1), nn.ReLU()
        kill(self.conv, 1)

    def forward(self, batch: Tensor) -> Tensor:
        z = self.conv(batch) * 2 + 0
        return self.act(F.dropout(-z.neg(), 0.0, self.training))


def test_axis_through_elementwise_operations() -> None:
    torch.manual_seed(0)
    units = harness.scan(Scaled(), torch.randn(3, 2, 7)).units
    assert units.unit.tolist() == [0, 1, 2, 3]
    assert set(units.n) == {21}
    assert units.state[1] == "dead"


def test_a_linear_after_a_convolution() -> None:
    """(B, S, F) out of a Linear has its units last, whatever came before."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(2, 4, 1), nn.ReLU(), nn.Linear(7, 5), nn.ReLU())
    units = harness.scan(model, torch.randn(3, 2, 7)).units
    assert units.groupby("site").n.first().to_dict() == {"1": 21, "3": 12}
    assert units.groupby("site").unit.count().to_dict() == {"1": 4, "3": 5}


class Chosen(nn.Module):
    """Rows are chosen by a mask that may choose none."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.act = nn.Linear(3, 4), nn.ReLU()

    def forward(self, batch: Tensor, mask: Tensor) -> Tensor:
        z = self.fc(batch)
        return self.act(z[mask][torch.arange(int(mask.sum()))])


def test_rows_chosen_by_a_mask_keep_their_units() -> None:
    torch.manual_seed(0)
    model = Chosen()
    kill(model.fc, 2)
    with harness.Recorder(model, census_every=None) as recorder:
        for rows in (3, 0, 2):
            model(torch.randn(5, 3), torch.arange(5) < rows)
        census = recorder.census()
    assert census.unit.tolist() == [0, 1, 2, 3]
    assert set(census.n) == {5}
    assert census.state[2] == "dead"
