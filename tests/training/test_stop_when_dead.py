"""train.stop_when_dead: a run ends at the first census with so many dead units, alone as in a cohort."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from side_by_side import assert_alike, made, one_by_one, parameters, tables, together
from typer.testing import CliRunner

from harness import open_runs
from harness.config import ConfigError, compose, plan, run_folder, run_id, to_mapping
from harness.console import show
from harness.sweeps.cohort_job import run_cohort
from harness.sweeps.cohorts import divide
from harness.sweeps.job import run_job
from harness.tools import app
from harness.training import loop
from harness.training.loop import TrainResult

STOP = ["train.stop_when_dead=0.9"]
DYING = ["bias.offset=-9", "seed=1"]
REASON = "100.0 % of 24 units were dead at step 5 (train.stop_when_dead=0.9)"


def test_a_run_without_it_is_the_run_that_it_was() -> None:
    assert (
        run_id(compose(["record.census_every=50"])) == "digits-mlp-relu-sgd-lr0.1-s0-d2c0588a"
    )  # as of the first version
    assert run_id(compose(STOP)) != run_id(compose())
    with pytest.raises(ConfigError, match="needs censuses"):
        compose([*STOP, "record=off"])
    for wrong in ("0", "1.5", "yes"):
        with pytest.raises(ConfigError, match="stop_when_dead"):
            compose([f"train.stop_when_dead={wrong}"])


@pytest.mark.parametrize("record", ["record.probe=true", "record.probe=false"])
def test_a_member_stops_where_it_would_alone_and_the_others_go_on(record: str, tmp_path: Path) -> None:
    members = [DYING, ["seed=2"], [*DYING, "train.stop_when_dead=null"], [*DYING, "seed=3"]]
    shared = [*STOP, record, "dtype=float64", "optim.weight_decay=0.01"]
    alone, stacked = made(tmp_path / "alone", members, shared), made(tmp_path / "stacked", members, shared)
    endings = one_by_one(alone)
    assert endings == together(stacked, tmp_path / "keep")
    assert endings == [
        TrainResult(5, None, REASON),
        TrainResult(12, None),
        TrainResult(12, None),
        TrainResult(5, None, REASON),
    ]
    for one, two in zip(alone, stacked, strict=True):
        assert_alike(one, two, 1e-8)
        for name, value in parameters(one).items():
            assert value.allclose(parameters(two)[name], atol=1e-8)
    steps, events = tables(alone[0])["steps"], tables(alone[0])["events"]
    assert steps["step"].tolist() == [1, 2, 3, 4, 5]
    assert steps["test_accuracy"].notna().tolist() == [False] * 4 + [True]
    assert events[["step", "kind", "detail"]].iloc[-1].tolist() == [5, "stopped", REASON]


@pytest.mark.parametrize("stop", [4, 5])
def test_an_interrupted_run_stops_where_it_would_have(
    stop: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the interrupt comes with the very census that ends it."""
    (whole,), (torn,) = made(tmp_path / "whole", [DYING], STOP), made(tmp_path / "torn", [DYING], STOP)
    endings = one_by_one([whole])
    honest = loop._Run._one_step

    def interrupted(self: loop._Run) -> bool:
        if self.step + 1 == stop:
            signal.raise_signal(signal.SIGINT)
        return honest(self)

    with monkeypatch.context() as patch:
        patch.setattr(loop._Run, "_one_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            one_by_one([torn])
    assert one_by_one([torn]) == endings
    for name, table in tables(whole).items():
        assert table.equals(tables(torn)[name]), name


def test_where_it_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["model.width=8", "record.early=false", "record.census_every=5", "train.max_steps=12", *STOP]
    spec = compose([*words, "bias.offset=-9", f"output={tmp_path}"])
    outcome = run_job(spec)
    assert outcome.state == "finished"
    (run,) = open_runs(tmp_path)
    assert run.status["steps"] == 5
    assert run.status["stopped"] == REASON
    assert run.status["final"]["accuracy"] is not None
    show(spec, outcome)
    assert f"Stopped early: {REASON}." in " ".join(capsys.readouterr().out.split())
    assert CliRunner().invoke(app, ["report", str(run.path)]).exit_code == 0
    assert f"It ended before its last step: {REASON}." in (run.path / "report.html").read_text()
    assert run_job(spec).stored
    assert "train.stop_when_dead=0.9" in (run.path / "report.html").read_text()


def test_a_stopped_member_of_a_sweep_is_finished_and_says_why(tmp_path: Path) -> None:
    words = ["model.width=8", "record.early=false", "record.census_every=5", "train.max_steps=12", *STOP]
    specs = plan([*words, "bias.offset=-9,0", "seed=0,1", f"output={tmp_path}"], multirun=True)
    (task,) = divide(specs)
    assert [outcome.state for outcome in run_cohort(task)] == ["finished"] * 4
    runs = open_runs(tmp_path)
    assert [run.status.get("stopped") for run in runs] == [REASON, REASON, None, None]
    assert [run.status["steps"] for run in runs] == [5, 5, 12, 12]
    assert all((run_folder(spec) / "checkpoint.pt").is_file() for spec in specs)
    assert to_mapping(specs[0])["train"]["stop_when_dead"] == 0.9
