"""Twelve trainings with the documented one-liner: each is a run like any other."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from typer.testing import CliRunner

import harness
from harness.tools import app

SCRIPTS = sorted((Path(__file__).parent / "trainings").glob("*.py"))
SEPARATE = {"ddp"}  # starts processes of its own


def run(script: Path, output: Path, lr: float, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = [str(script), str(output), str(lr)]
    if script.stem in SEPARATE:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        subprocess.run([sys.executable, *arguments], env=environment, check=True, timeout=240)
        return
    monkeypatch.setattr(sys, "argv", arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the trainers
        runpy.run_path(str(script), run_name="__main__")


def test_there_are_twelve_and_each_is_short() -> None:
    assert len(SCRIPTS) == 12
    for script in SCRIPTS:
        assert len(script.read_text().splitlines()) < 40, script.name


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_every_command_accepts_its_runs(
    script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "runs"
    rates = (0.003, 0.01)
    for lr in rates:
        run(script, root, lr, monkeypatch)
    runs = harness.open_runs(root)
    assert sorted(runs.table["lr"]) == list(rates)
    for found in runs:
        assert found.state == "finished", found.status
        assert found.status["steps"] in (30, 40)
        assert set(found.census["step"]) >= {10, 20, 30}
        assert (found.census["n"] > 0).any()
        assert found.row()["final.units"] > 0
        assert found.steps["step"].tolist() == list(range(1, found.status["steps"] + 1))
    commands = [[command, str(root)] for command in ("report", "compare", "dashboard", "status", "diagnose")]
    commands += [[command, str(runs[0].path)] for command in ("report", "diagnose", "risk")]
    for command in commands:
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, (command, done.output)
