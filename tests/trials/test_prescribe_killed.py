"""`harness-tools prescribe` that is killed: the same command goes on, and ends as if nobody had killed it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

import harness
from harness.config import compose
from harness.store.prescription import read_prescription
from harness.sweeps.job import run_job

WORDS = ("train.epochs=8", "model.width=24", "model.depth=2", "record.tensorboard=false", "bias.offset=-3")
COMMAND = (sys.executable, "-m", "harness.tools", "prescribe")


def finished(run: Path) -> set[Path]:
    """Trials with a result."""
    found = (run / "prescribe").glob("*/status.json")
    return {path for path in found if json.loads(path.read_text())["state"] == "finished"}


def killed_after(run: Path, trials: int) -> None:
    """Start the command, and kill it with its workers as soon as so many trials have ended."""
    with subprocess.Popen(
        [*COMMAND, str(run)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        while len(finished(run)) < trials:
            assert process.poll() is None, "it has ended by itself"
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="process groups")
def test_the_same_command_continues(tmp_path: Path) -> None:
    run = run_job(compose([*WORDS, f"output={tmp_path / 'runs'}"])).path
    whole = tmp_path / "whole" / run.name
    shutil.copytree(run, whole)
    for trials in (1, 30):
        killed_after(run, trials)
        assert read_prescription(run) is None
    before = {path: path.stat().st_mtime_ns for path in finished(run)}
    for one in (run, whole):
        harness.prescribe(one)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    found, expected = read_prescription(run), read_prescription(whole)
    assert found is not None
    assert expected is not None
    assert found["cure"] == expected["cure"]
    assert found["command"].rpartition(" ")[0] == expected["command"].rpartition(" ")[0]  # but for the folder
    pd.testing.assert_frame_equal(
        found["table"].drop(columns="seconds"), expected["table"].drop(columns="seconds"), atol=1e-3
    )
