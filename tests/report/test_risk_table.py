"""The table of units at risk."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from harness.config import compose
from harness.sweeps.job import run_job
from harness.tools import app


def test_the_command_lists_living_units_and_how_far_to_trust_it(tmp_path: Path) -> None:
    words = ["model.width=8", "model.depth=2", "train.max_steps=4", "record.tensorboard=false"]
    outcome = run_job(compose([*words, "bias.offset=-0.5", f"output={tmp_path}"]))
    found = CliRunner().invoke(app, ["risk", str(outcome.path), "--most", "3"])
    assert found.exit_code == 0, found.output
    rows = [line for line in found.output.splitlines() if line.strip().startswith("layers.")]
    assert len(rows) == 3
    assert not any(" dead " in row for row in rows)
    assert "0.96 (all units), 0.91 (alive now)" in " ".join(found.output.split())


def test_a_census_that_is_not_there_is_told(tmp_path: Path) -> None:
    outcome = run_job(compose(["model.width=8", "train.max_steps=4", f"output={tmp_path}", "record=light"]))
    found = CliRunner().invoke(app, ["risk", str(outcome.path), "--step", "999"])
    assert found.exit_code == 2
    assert "got 999" in found.output


@pytest.mark.parametrize("damage", ["torn", "edited", "gone"])
def test_where_the_census_is_damaged_nothing_is_left(damage: str, tmp_path: Path) -> None:
    outcome = run_job(compose(["model.width=8", "train.max_steps=4", f"output={tmp_path}", "record=light"]))
    path = outcome.path / "census.parquet"
    if damage == "torn":
        path.write_bytes(path.read_bytes()[:100])
    elif damage == "edited":
        pd.read_parquet(path).assign(state="dead").to_parquet(path, index=False)
    else:
        path.unlink()
    found = CliRunner().invoke(app, ["risk", str(outcome.path)])
    assert found.exit_code == 1
    assert "census.parquet cannot be read: it is" in " ".join(found.output.split())
