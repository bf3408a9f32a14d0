"""Sweeps that cannot be run, and files of sweeps that were damaged."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from command_line import SWEPT, TINY, run

from harness import open_runs
from harness.config import ConfigError, compose, plan
from harness.sweeps.status import status_of

WRONG = {
    "output={0}/a,{0}/b": "output: cannot be swept over",
    "detect.rare=0.1,0.2": "detect.rare: cannot be swept over: it does not decide a result",
    "force=true,false": "force: cannot be swept over",
    "hydra/launcher=basic,joblib": "hydra/launcher: cannot be swept over",
    "hydra.launcher.workers=1,2": "hydra.launcher.workers: cannot be swept over",
    "hydra.launcher.workers=abc": "'abc' of type 'str' could not be converted to Integer",
    "hydra.launcher._target_=foo.Bar": "hydra.launcher._target_: expected a launcher's",
    "hydra.sweep.dir=elsewhere": "hydra.sweep.dir: has no effect",
    "++hydra.job.chdir=true": "hydra.job.chdir: has no effect",
    "hydra.sweeper.params={{seed:1}}": "hydra.sweeper.params: cannot",
    "+hydra.sweeper.params.seed=1,2": "hydra.sweeper.params.seed: cannot",
    "seed=${{optim.lr}},1": "seed: cannot be resolved",
    "optim.lr=${{nope}},1": "optim.lr: cannot be resolved (Interpolation key 'nope' not found)",
    "seed=range(1000000000)": "seed: expected a sweep of at most 1,000,000 runs",
    "output={0}/" + "x" * 300: "output: cannot be a folder (File name too long)",
    "output={0}/blocked": "output: {0}/blocked cannot be written",
}


@pytest.mark.parametrize("line", WRONG)
def test_wrong_sweeps_get_one_message(line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "blocked").mkdir()
    (tmp_path / "blocked" / ".sweeps").write_text("a file")
    assert run("-m", *TINY, "seed=0,1", f"output={tmp_path}/out", line.format(tmp_path)) == 2
    told = capsys.readouterr().err
    assert WRONG[line].format(tmp_path) in told
    assert len(told.strip().splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["blocked"]


def test_damaged_files_of_a_sweep_stop_nobody(tmp_path: Path) -> None:
    assert run("-m", *SWEPT, f"output={tmp_path}") == 0
    first, second, *_ = open_runs(tmp_path)
    for path in (tmp_path / ".sweeps").glob("*.json"):
        path.write_text('{"runs": [[1]]}')
    (tmp_path / ".sweeps" / "other.json").write_text('{"runs": 5}')
    (tmp_path / ".sweeps" / "pulse.json").write_text('{"x": 1}')
    assert status_of(tmp_path).states == {"finished": 6}
    (first.path / "config.yaml").write_text("- a list\n")
    (second.path / "status.json").write_text('{"state": "finished", "final": [1]}')
    with pytest.warns(UserWarning, match="cannot be read"):
        assert len(open_runs(tmp_path).table) == 5
    shutil.rmtree(second.path)
    assert run("-m", *SWEPT, f"output={tmp_path}") == 0
    assert status_of(tmp_path).states == {"finished": 6}


def test_a_value_that_cannot_be_resolved_spoils_no_later_command() -> None:
    with pytest.raises(ConfigError, match="cannot be resolved"):
        plan(["optim.lr=${nope},1"], multirun=True)
    assert compose(["record.census_share=null"]).record.census_share is None
