"""Hydra's other launchers leave the tables that ours leaves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from command_line import run

from harness import open_runs

SWEPT = ["model.width=8", "model.depth=1", "train.max_steps=12", "record.tensorboard=false"]
SWEPT += ["optim.lr=0.1,1e30", "activation=relu,leaky_relu", "dtype=float64"]
LAUNCHERS = {
    "basic": [],
    "joblib": ["hydra.launcher.n_jobs=2"],
    "submitit_local": [],
    "ray": ["+hydra.launcher.ray.init.num_cpus=2"],
}


def table(folder: Path) -> pd.DataFrame:
    return open_runs(folder).table.drop(columns=["path", "output"])


def sweep(output: Path, *more: str) -> str:
    command = [sys.executable, "-m", "harness", "-m", *SWEPT, f"output={output}", *more]
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=400, cwd=output.parent
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ours") / "runs"
    assert run("-m", *SWEPT, f"output={folder}") == 0
    return folder


@pytest.mark.parametrize("launcher", sorted(LAUNCHERS))
def test_same_tables(launcher: str, ours: Path, tmp_path: Path) -> None:
    said = sweep(tmp_path / "runs", f"hydra/launcher={launcher}", *LAUNCHERS[launcher])
    carried = launcher in ("ray", "submitit_local")  # cohorts, not single runs
    assert ("trained as one stack" in said) is carried
    want, got = table(ours), table(tmp_path / "runs")
    assert sorted(set(got["status"])) == ["diverged", "finished"]
    pd.testing.assert_frame_equal(want, got, rtol=1e-8, atol=1e-8)
    if carried:
        pd.testing.assert_frame_equal(want, got)
        pd.testing.assert_frame_equal(open_runs(ours).census, open_runs(tmp_path / "runs").census)
