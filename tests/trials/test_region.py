"""The safe region of a sweep, from stored runs, and the runs that are proposed next."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from harness import open_runs
from harness.cli import run
from harness.config import plan
from harness.tools import app
from harness.trials.safe_region import safe_region

SWEEP = ("-m", "optim.lr=0.03,0.3,3", "bias.offset=0,-1.5", "seed=0,1", "model.width=16", "train.epochs=3")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("sweep")
    run([*SWEEP, "record.tensorboard=false", "hydra.launcher.workers=1", f"output={place}"])
    return place


def test_safe_settings_are_those_of_the_rule(folder: Path) -> None:
    runs = open_runs(folder)
    found = safe_region(runs, folder, dead=0.3, within=0.1)
    table = runs.table.assign(dead=runs.table["final.dead_fraction"].fillna(1.0))
    means = table.groupby(["optim.lr", "bias.offset"])["dead"].mean()
    for row in found.table.to_dict("records"):
        key = row["optim.lr"], row["bias.offset"]
        assert row["dead"] == pytest.approx(means[key])
        best = found.table["metric"].max()
        assert row["safe"] == (row["dead"] <= 0.3 and row["metric"] >= best - 0.1 and not row["diverged"])
    count = found.table["safe"].sum()
    assert f"{count} of 6 settings {'is' if count == 1 else 'are'} safe" in found.text
    assert safe_region(runs, folder, dead=0.0, within=0.0).text.startswith("None of the 6 settings is safe")


def test_the_next_runs_are_a_command_inside_the_range(folder: Path) -> None:
    found = safe_region(open_runs(folder), folder)
    words = shlex.split(found.command)
    assert words[:2] == ["harness", "-m"]
    specs = plan(words[2:], multirun=True)
    assert len(specs) == 16
    assert all(0.03 <= spec.optim.lr <= 3 and -1.5 <= spec.bias.offset <= 0 for spec in specs)
    assert {spec.model.width for spec in specs} == {16}  # type: ignore[attr-defined]


def test_the_command_says_it_and_one_run_is_no_sweep(folder: Path, tmp_path: Path) -> None:
    told = CliRunner().invoke(app, ["prescribe", str(folder), "--json", str(tmp_path / "found.json")])
    assert told.exit_code == 0, told.output
    assert "of 6 settings" in told.output or "of the 6 settings" in told.output
    assert json.loads((tmp_path / "found.json").read_text())["command"].startswith("harness -m ")
    with pytest.raises(ValueError, match="nothing was varied but the seed"):
        safe_region(open_runs(folder)[:1], folder)
    assert isinstance(safe_region(open_runs(folder), folder).table, pd.DataFrame)


@pytest.mark.parametrize("levels", ["null,0.5,5", "null,1"])
def test_null_beside_numbers_is_a_level_of_its_own(tmp_path: Path, levels: str) -> None:
    words = (f"train.clip_grad={levels}", "optim.lr=0.01,0.03,0.1", "model.width=16", "train.epochs=3")
    run(["-m", *words, "record.tensorboard=false", "hydra.launcher.workers=1", f"output={tmp_path}"])
    found = safe_region(open_runs(tmp_path), tmp_path, dead=1.0, within=1.0)
    named = [line.partition(":")[0] for line in found.text.splitlines()[1:]]
    assert sorted(named) == sorted(f"train.clip_grad={level}" for level in _shown(levels))
    plan(shlex.split(found.command)[2:], multirun=True)


def _shown(levels: str) -> list[str]:
    return [level if level == "null" else str(float(level)) for level in levels.split(",")]
