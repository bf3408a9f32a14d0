"""The command line: exit codes, messages, finished runs, sweeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness import cli, open_runs
from harness.tools import app

TINY = ["model.width=8", "model.depth=1", "train.max_steps=6", "record.tensorboard=false"]


def run(*argv: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main([*argv])
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.fixture
def out(tmp_path: Path) -> str:
    return f"output={tmp_path / 'runs'}"


def write_npz(path: Path, **changes: np.ndarray) -> str:
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        "x_train": rng.random((20, 3), np.float32),
        "y_train": np.arange(20) % 2,
        "x_test": rng.random((6, 3), np.float32),
        "y_test": np.arange(6) % 2,
    } | changes
    np.savez(path, **arrays)
    return f"data.path={path}"


WRONG = [
    "optim.lrr=1",
    "learning_rate=1",
    "optim.lr=fast",
    "optim.lr=0",
    "optim.lr=-0.1",
    "optim.lr=nan",
    "model=mpl",
    "model.depth=0",
    "model.depth=2.5",
    "model=cnn model.depth=3",
    "model.norm=bach",
    "model=vgg model.depth=12",
    "model=transformer model.patch=3",
    "model=transformer model.heads=5",
    "model=cnn data=synthetic",
    "model=resnet activation=crelu",
    "activation=rellu",
    "activation.slope=0.1",
    "bias.offset=low",
    "seed=1,2",
    "seed=-1",
    "seed=[",
    "+wd=0.1",
    "~optim",
    "optim=adam optim.betas=[0.9]",
    "data=arrays",
    "data=arrays data.path=/nowhere/none.npz",
    "data=minst",
    "data.subset=100000",
    "data.label_noise=2",
    "data=synthetic data.augment=true",
    "train.batch_size=0",
    "device=gpu",
    "dtype=float16",
    "force=maybe",
    "--frobnicate",
    "-m optim.lr=0.1,-1",
    "-m model=mlp,mpl",
    "experiment=nothing",
    "model=null",
    "optim=momentum optim.nesterov=true optim.momentum=0",
    "optim.lr=1e308",
    "record.gate_eps=10",
    "model.width=1000000000",
    "model.norm=batch train.batch_size=1",
    "data.root=${nope}",
    "--cfg job optim.lrr=3",
    "--cfg job -m seed=0,1",
    "--resolve",
    "--package x",
    "-p optim --resolve",
    "-sc",
    "-m optim.lr=interval(0.1,1)",
    "-m seed=glob(*)",
]


@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_command_line_is_one_clear_message(
    line: str, out: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*line.split(), out) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("harness: ")
    assert len(said.err.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_no_data_are_named(
    out: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "text.npz").write_text("no archive")
    paths = [f"data.path={folder / 'text.npz'}"]
    paths.append(write_npz(folder / "nan.npz", x_train=np.full((20, 3), np.nan, np.float32)))
    paths.append(write_npz(folder / "short.npz", y_train=np.zeros(3, int)))
    paths.append(write_npz(folder / "shape.npz", x_test=np.zeros((6, 4), np.float32)))
    for path in paths:
        assert run("data=arrays", path, out) == 2
        assert "data.path" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_an_unwritable_output_is_refused_before_anything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert run(f"output={tmp_path / 'file' / 'runs'}") == 2
    assert "output: expected a folder" in capsys.readouterr().err


def test_a_run_from_nothing_to_the_verdict_and_again(
    out: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*TINY, out) == 0
    first = capsys.readouterr().out
    assert "units dead" in first or "8 units" in first
    assert "Test accuracy" in first
    run_ = open_runs(tmp_path / "runs")[0]
    assert run_.status["state"] == "finished"
    assert {"config.yaml", "status.json", "census.parquet", "steps.parquet", "events.parquet"} <= {
        p.name for p in run_.path.iterdir()
    }
    stamp = (run_.path / "census.parquet").stat().st_mtime_ns
    assert run(*TINY, out) == 0
    again = capsys.readouterr().out
    assert "finished before" in again
    assert (run_.path / "census.parquet").stat().st_mtime_ns == stamp
    assert run(*TINY, out, "force=true") == 0
    assert (run_.path / "census.parquet").stat().st_mtime_ns != stamp


def test_thresholds_can_be_changed_without_training(out: str, capsys: pytest.CaptureFixture[str]) -> None:
    run(*TINY, out)
    capsys.readouterr()
    assert run(*TINY, out, "detect.rare=1.0") == 0
    said = capsys.readouterr().out
    assert "finished before" in said
    assert "rare" in said


def test_a_diverged_run_is_a_result(out: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*TINY, out, "optim.lr=1e30", "train.max_steps=20") == 0
    assert "Diverged" in capsys.readouterr().out
    run_ = open_runs(tmp_path / "runs")[0]
    assert run_.status["state"] == "diverged"
    assert run_.status["diverged_at"] >= 2
    assert np.isfinite(run_.census["mean"]).all()
    assert run_.events["kind"].tolist()[-1] == "diverged"
    json.loads((run_.path / "status.json").read_text(), parse_constant=pytest.fail)


def test_damaged_remains_do_not_stop_a_run(
    out: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*TINY, out) == 0
    path = open_runs(tmp_path / "runs")[0].path
    (path / "census.parquet").write_bytes(b"garbage")
    capsys.readouterr()
    assert run(*TINY, out) == 2
    assert "force=true" in capsys.readouterr().err
    (path / "status.json").write_text("{")  # not known to be finished: trained again, from the start
    (path / "checkpoint.pt").write_bytes(b"garbage")
    assert run(*TINY, out) == 0
    assert "units dead" in capsys.readouterr().out


def test_a_checkpoint_of_another_network_is_called_that(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is whole, but somebody copied it: the run fails by name, and force=true mends it."""
    words = ["train.max_steps=20", "train.checkpoint_seconds=0", f"output={tmp_path}"]
    for width in (8, 16):
        assert run(*words, f"model.width={width}") == 0
    (narrow,) = (r for r in open_runs(tmp_path) if r.config["model"]["width"] == 8)
    (wide,) = (r for r in open_runs(tmp_path) if r.config["model"]["width"] == 16)
    content = torch.load(narrow.path / "checkpoint.pt", weights_only=True)
    for run_ in (narrow, wide):
        (run_.path / "status.json").unlink()
    torch.save(content, wide.path / "checkpoint.pt")
    assert run(*words, "model.width=16") == 1
    told = " ".join(capsys.readouterr().out.split())
    assert "checkpoint.pt does not hold the state of this run" in told
    assert "force=true" in told
    assert run(*words, "model.width=16", "force=true") == 0


def test_square_brackets_in_a_folder_are_no_markup(tmp_path: Path) -> None:
    assert run(*TINY, f"output='{tmp_path}/[/red]'") == 0


def test_a_diverged_run_that_lost_its_status_is_trained_again(out: str, tmp_path: Path) -> None:
    line = [*TINY, out, "optim.lr=1e30", "train.max_steps=20", "train.checkpoint_seconds=0"]
    assert run(*line) == 0
    run_ = open_runs(tmp_path / "runs")[0]
    before = run_.census
    (run_.path / "status.json").unlink()
    assert run(*line) == 0
    assert open_runs(tmp_path / "runs")[0].census.equals(before)


def test_record_off_trains_without_a_verdict(out: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*TINY, out, "record=off") == 0
    assert "no statement about dead units" in capsys.readouterr().out


def test_a_sweep_by_hydra(out: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("-m", *TINY, out, "optim.lr=0.1,1e30", "seed=range(2)") == 0
    said = capsys.readouterr().out
    assert "4 run(s)" in said
    rows = [line for line in said.splitlines() if line.rstrip().endswith(" diverged")]
    assert len(rows) == 2, "a run that diverged has no share, least of all 0 %"
    table = open_runs(tmp_path / "runs").table
    assert sorted(table["status"]) == ["diverged", "diverged", "finished", "finished"]
    assert sorted(set(table["seed"])) == [0, 1]


def test_a_failed_job_leaves_the_others_and_its_traceback(
    out: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.training import loop
    from harness.training.stacked import cohort

    honest = loop.make_optimizer

    def broken(spec, model):  # type: ignore[no-untyped-def]
        if spec.seed == 1:
            raise RuntimeError("boom")
        return honest(spec, model)

    def unstackable(specs, data):  # type: ignore[no-untyped-def]
        raise RuntimeError("boom")

    monkeypatch.setattr(loop, "make_optimizer", broken)
    monkeypatch.setattr(cohort, "initial", unstackable)  # then each member goes alone
    assert run("-m", *TINY, out, "seed=range(3)") == 1
    assert "RuntimeError: boom" in capsys.readouterr().out
    runs = open_runs(tmp_path / "runs")
    assert sorted(runs.table["status"]) == ["failed", "finished", "finished"]
    failed = next(r for r in runs if r.status["state"] == "failed")
    assert "boom" in (failed.path / "error.txt").read_text()
    monkeypatch.setattr(loop, "make_optimizer", honest)
    assert run(*TINY, out, "seed=1") == 0
    assert not (failed.path / "error.txt").exists()


def test_help_names_every_group(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    said = capsys.readouterr().out
    for word in ("activation=", "data=", "model=", "census_every", "harness -m"):
        assert word in said


def test_tools_report_and_dashboard(out: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(*TINY, out)
    capsys.readouterr()
    for command, words in ((["report"], "units dead"), (["dashboard"], "1 run(s) rebuilt")):
        with pytest.raises(SystemExit) as ended:
            app([*command, str(tmp_path / "runs")])
        assert not ended.value.code
        assert words in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        app(["report", str(tmp_path / "nowhere")])
    assert ended.value.code == 2
