"""Options of `harness-tools` that are the same on every command, and what is refused early."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

import harness
from harness.cli import main
from harness.cli import run as trained
from harness.tools import app

COMMANDS = tuple(info.name or info.callback.__name__ for info in app.registered_commands if info.callback)


def invoke(*words: object, code: int = 0) -> str:
    done = CliRunner().invoke(app, [*map(str, words)], catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done.output


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    small = ["model.width=8", "train.max_steps=30", "record.tensorboard=false", "optim.lr=1.0"]
    assert trained([*small, f"output={root}"]) == 0
    return next(path for path in root.iterdir() if (path / "status.json").is_file())


def test_both_commands_tell_their_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke("--version").strip() == f"harness-tools {harness.__version__}"
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert not ended.value.code
    assert capsys.readouterr().out.strip() == f"harness {harness.__version__}"


@pytest.mark.parametrize("command", COMMANDS)
def test_no_help_text_lost_its_end(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    text = re.sub(r"\x1b\[[0-9;]*m", "", invoke(command, "--help"))
    assert not re.search(r" \.(?: |$)", text, re.MULTILINE), text


@pytest.mark.parametrize("command", ["report", "diagnose", "risk"])
def test_what_is_shown_can_be_written(command: str, run: Path, tmp_path: Path) -> None:
    told = invoke(command, run, "--json", tmp_path / "all.json", "--csv", tmp_path / "tables")
    assert "written" in told
    content = json.loads((tmp_path / "all.json").read_text())
    tables = {path.stem: pd.read_csv(path) for path in (tmp_path / "tables").iterdir()}
    assert tables
    for name, table in tables.items():
        assert len(content[name]) == len(table)
        assert list(content[name][0]) == list(table) if len(table) else True


def test_the_status_can_be_written(run: Path, tmp_path: Path) -> None:
    invoke("status", run.parent, "--json", tmp_path / "status.json")
    assert json.loads((tmp_path / "status.json").read_text())["states"] == {"finished": 1}


def test_a_place_that_cannot_be_written_is_told_in_a_line(run: Path, tmp_path: Path) -> None:
    told = invoke("risk", run, "--json", tmp_path / "no" / "such" / "folder.json", code=2)
    assert "Traceback" not in told


@pytest.mark.parametrize("share", [20, -0.1, 1.5])
def test_a_share_that_is_none_is_refused_before_anything_is_scanned(share: float) -> None:
    told = invoke("scan", "no.such:module", "--fail-over", share, code=2)
    assert "--fail-over: expected a share in [0, 1]" in " ".join(re.sub("[│╭╮╰╯─]", " ", told).split())
    assert "no.such" not in told.replace("Usage", "")


def test_slurm_without_srun_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(SystemExit) as ended:
        main(["-m", "seed=0,1", "hydra/launcher=submitit_slurm", f"output={tmp_path}"])
    assert ended.value.code == 2
    told = capsys.readouterr()
    assert len(told.err.strip().splitlines()) == 1
    assert "srun" in told.err
    assert not list(tmp_path.iterdir())


def test_tables_have_room_for_every_word_and_columns_is_honoured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["model.width=4", "train.max_steps=4", "record.tensorboard=false", f"output={tmp_path}"]
    assert trained(["-m", *words, "activation=relu,leaky_relu", "seed=range(3)"]) == 0
    monkeypatch.delenv("COLUMNS", raising=False)
    wide = invoke("compare", tmp_path)
    for word in ("outcome", "leaky_relu", "born dead", "accuracy"):
        assert word in wide
    monkeypatch.setenv("COLUMNS", "100")
    assert max(map(len, invoke("compare", tmp_path).splitlines())) <= 100
