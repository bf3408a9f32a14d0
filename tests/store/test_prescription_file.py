"""`prescription.json`: what is written is read, and what is damaged stops no report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from harness.config import compose
from harness.report.html.run import run_report
from harness.store.prescription import FILE, read_prescription, write_prescription
from harness.store.reading import DamagedFile
from harness.store.runs import Run
from harness.sweeps.job import run_job

ROW = {"cure": "zero bias", "stands_for": "bias_init", "verdict": "helps", "seeds": 3, "steps": 90}
ROW |= {"metric": 0.9, "dead": 0.1, "diverged": 0, "seconds": 1.5, "gain": 0.8, "low": 0.7, "high": 0.9}
TABLE = pd.DataFrame([ROW, ROW | {"cure": "as it was", "gain": np.nan, "low": np.nan, "high": np.nan}])
FACTS = {"text": "Recommended: zero bias.", "command": "harness bias=zero"}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert read_prescription(tmp_path) is None
    write_prescription(tmp_path, TABLE, FACTS)
    found = read_prescription(tmp_path)
    assert found is not None
    assert found["command"] == "harness bias=zero"
    pd.testing.assert_frame_equal(found["table"], TABLE)


BROKEN = {
    "no table": {"table": 3},
    "no text": {"text": None},
    "rows that are none": {"table": [1, 2]},
    "a number in words": {"table": [ROW | {"metric": "high"}]},
    "no cure": {"table": [{**ROW, "cure": None}]},
    "a missing column": {"table": [{k: v for k, v in ROW.items() if k != "dead"}]},
    "a command of numbers": {"command": 7},
}


@pytest.mark.parametrize("name", BROKEN)
def test_damage_is_named(name: str, tmp_path: Path) -> None:
    broken: dict[str, Any] = {**FACTS, "table": [ROW], **BROKEN[name]}
    (tmp_path / FILE).write_text(json.dumps(broken))
    with pytest.raises(DamagedFile, match=FILE):
        read_prescription(tmp_path)


def test_a_report_says_so_and_shows_the_rest(tmp_path: Path) -> None:
    words = ["train.max_steps=10", "model.width=8", "record.tensorboard=false", f"output={tmp_path}"]
    run = Run(run_job(compose(words)).path)
    write_prescription(run.path, TABLE, FACTS)
    assert "harness bias=zero" in run_report(run).html()
    (run.path / FILE).write_text("{")
    page = run_report(run).html()
    assert "Cures that were tried" in page
    assert "cannot be read" in page
