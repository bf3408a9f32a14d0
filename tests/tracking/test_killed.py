"""A training of one's own that is killed: what is on disk opens, lacks a record at most, and is continued."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

import harness
from harness.tools import app

CENSUS = 5  # steps between two censuses of killed_loop
MOMENTS = [
    (0, 0.0),
    (1, 0.3),
    (5, 0.0),
    (9, 0.6),
    (10, 0.1),
    (20, 0.4),
    (25, 0.2),
    (33, 0.9),
    (50, 0.0),
    (59, 0.5),
]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
def test_ten_moments(tmp_path: Path) -> None:
    """One test: workers that share its parts would each train anew."""
    moments = [str(number) for moment in MOMENTS for number in moment]
    program = Path(__file__).with_name("killed_loop.py")
    subprocess.run([sys.executable, str(program), str(tmp_path), *moments], check=True)
    for k in range(len(MOMENTS)):
        what_it_left_opens_and_lacks_a_record_at_most(k, tmp_path)
        attached_again_it_ends_as_if_nobody_had_killed_it(k, tmp_path)


def what_it_left_opens_and_lacks_a_record_at_most(k: int, trainings: Path) -> None:
    told = int((trainings / f"{k} told").read_text())
    runs = harness.open_runs(trainings / f"{k} killed")
    if not told and not len(runs):
        return  # before it had made its folder
    (run,) = runs
    assert (run.damage, run.state) == ("", "running" if told < 60 else "finished")
    census = run.census
    steps = run.steps["step"].tolist()
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) >= told - told % CENSUS - CENSUS
    taken = sorted(set(census["step"])) if len(census) else []
    assert taken == list(range(CENSUS, CENSUS * len(taken) + 1, CENSUS))
    assert len(taken) >= told // CENSUS - 1
    done = CliRunner().invoke(app, ["report", str(run.path)])
    assert done.exit_code == 0, done.output
    page = (run.path / "report.html").read_text()
    assert "interrupted (its process ended without concluding it)" in page
    assert ("units dead" in page) == bool(taken)


def attached_again_it_ends_as_if_nobody_had_killed_it(k: int, trainings: Path) -> None:
    (whole,), (run,) = (harness.open_runs(trainings / name) for name in ("whole", str(k)))
    assert run.state == "finished"
    for name in ("census", "steps", "events"):
        pd.testing.assert_frame_equal(getattr(run, name), getattr(whole, name))
    assert run.status["final"] == whole.status["final"]
