"""Statistics of one's own: the examples of the docs, checked by hand, down to the stored table."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import harness
from harness.store.tables import read_table
from harness.store.writer import TableWriter

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "statistics.md"


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    """What the page's code makes, run from top to bottom."""
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S):
        exec(block, names)
    return names


def test_the_page_runs(page: dict[str, Any]) -> None:
    units = page["units"]
    assert set(units.n) == {96}
    bins = units[[f"z_bin_{i}" for i in range(16)]]
    assert set(bins.sum(axis=1)) == {96}


def test_columns_are_those_computed_by_hand(page: dict[str, Any]) -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv1d(2, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 6, 1))
    xs = [torch.randn(4, 2, 8) for _ in range(12)]
    with harness.Recorder(
        model, census_every=None, statistics=[page["Dormancy"](), page["Histogram"]()]
    ) as r:
        for x in xs:
            model(x).sum().backward()
        units = r.census()
        again = r.census()
    z = torch.cat([model[0](x).transpose(1, 2).reshape(-1, 5) for x in xs]).detach()
    mean = z.clamp(min=0).double().mean(0).numpy()
    np.testing.assert_allclose(units.mean_abs, mean, rtol=1e-6)
    np.testing.assert_allclose(units.dormancy, mean / mean.mean(), rtol=1e-6)
    for i in range(16):
        low, high = -4 + i * 0.5, -3.5 + i * 0.5
        inside = ((z > low) | (i == 0)) & ((z <= high) | (i == 15))
        assert units[f"z_bin_{i}"].tolist() == inside.sum(0).tolist()
    assert set(again.mean_abs) == {0.0}, "a new window has seen nothing"


def test_a_name_that_is_taken(page: dict[str, Any]) -> None:
    class Taken(page["Dormancy"]):  # type: ignore[misc]
        def columns(self) -> dict[str, Any]:
            return {"rate": self.sum.numpy()}

    with pytest.raises(ValueError, match="'rate' is there already"):
        harness.Recorder(nn.Sequential(nn.ReLU()), statistics=[Taken()])


def test_columns_reach_the_stored_table(page: dict[str, Any], tmp_path: Path) -> None:
    units = page["units"]
    writer = TableWriter(tmp_path, "census")
    writer.append(units)
    position = writer.position
    writer.close()
    writer = TableWriter(tmp_path, "census", position)
    writer.append(units.assign(step=1))
    writer.finish()
    table = read_table(tmp_path, "census").to_pandas()
    assert len(table) == 2 * len(units)
    assert table["mean_abs"].tolist() == [*units.mean_abs, *units.mean_abs]
    assert table["z_bin_3"].dtype == np.int64
