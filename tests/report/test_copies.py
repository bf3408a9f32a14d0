"""Copies of a run count once; runs of one name with other numbers are others."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from stored_runs import write_run

import harness


def test_a_copied_run_is_left_out_with_a_word(tmp_path: Path) -> None:
    write_run(tmp_path / "here", "one")
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    with pytest.warns(UserWarning, match=r"1 run\(s\) left out: copies of others"):
        assert len(harness.open_runs(tmp_path)) == 1


def test_runs_of_one_name_with_other_numbers_stay(tmp_path: Path) -> None:
    for dead in range(3):
        write_run(tmp_path / str(dead), "one", dead=dead)
    assert len(harness.open_runs(tmp_path)) == 3


def test_a_run_whose_status_is_gone_is_damaged_not_left_out(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "one")
    (folder / "status.json").unlink()
    (run,) = harness.open_runs(tmp_path)
    assert run.state == "damaged"
    assert "status.json is not there" in run.damage
