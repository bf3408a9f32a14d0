"""Recorder(output=…): a training of one's own is a run like any other."""

from __future__ import annotations

import argparse
import dataclasses
import errno
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf
from torch import nn
from typer.testing import CliRunner

import harness
from harness.tools import app

runner = CliRunner()


def train(
    output: Path, *, bias: float = 0.0, seed: int = 0, steps: int = 30, scale: float = 1.0, **options: Any
) -> harness.Recorder:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    model[0].bias.data.fill_(bias)  # pyright: ignore
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    config = {"net": {"bias": bias}, "seed": seed}
    options = {"config": config, "census_every": 10, "optimizer": optimizer, **options}
    with harness.Recorder(model, output=output, **options) as recorder:
        for step in range(steps):
            x = torch.randn(16, 6)
            loss = nn.functional.cross_entropy(model(x), x[:, :3].argmax(1)) * scale
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            last = {"test_accuracy": 0.5} if step == steps - 1 else {}
            recorder.step(loss=loss, accuracy=0.25, margin=step, **last)
    return recorder


def test_it_has_the_tables_of_any_run(tmp_path: Path) -> None:
    recorder = train(tmp_path, bias=-9.0, evidence=True)
    (run,) = harness.open_runs(tmp_path)
    assert run.path == recorder.path
    assert run.state == "finished"
    stored = run.census.drop(columns=["grad_rms", "grad_norm", "mean", "std", "max"])
    pd.testing.assert_frame_equal(stored, recorder.history()[stored.columns], check_dtype=False)
    assert run.steps["step"].tolist() == list(range(1, 31))
    assert run.steps["lr"].tolist() == [0.05] * 30
    assert run.steps["margin"].tolist() == list(range(30))
    assert run.steps["loss"].notna().all()
    table = harness.open_runs(tmp_path).table
    assert table["net.bias"].tolist() == [-9.0]
    assert table["final.dead_fraction"].tolist() == [1.0]
    assert table["final.accuracy"].tolist() == [0.5]
    assert table["final.cause"].tolist() == ["bias_init"]
    assert str(harness.diagnose(run)) == str(recorder.diagnose())
    for command in ("report", "dashboard", "status", "diagnose", "risk"):
        assert runner.invoke(app, [command, str(tmp_path)]).exit_code == 0


def test_a_second_run_of_one_config_says_that_it_replaces_the_first(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for seed in (0, 1, 0):
        assert not caplog.messages
        recorder = train(tmp_path, seed=seed, steps=2)
    assert caplog.messages == [f"output: the earlier run in {recorder.path}, of the same config, is replaced"]
    assert len(harness.open_runs(tmp_path)) == 2


def test_compare_names_what_was_varied(tmp_path: Path) -> None:
    for bias in (0.0, -9.0):
        for seed in range(3):
            train(tmp_path, bias=bias, seed=seed)
    done = runner.invoke(app, ["compare", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "net.bias (2 values) and 3 seeds: 6 finished" in " ".join(done.output.split())


@dataclasses.dataclass
class Options:
    lr: float = 0.1
    sizes: tuple[int, ...] = (8, 4)
    data: Path = Path("mnist")


@pytest.mark.parametrize(
    "config",
    [
        {"lr": 0.1, "sizes": (8, 4), "data": Path("mnist")},
        argparse.Namespace(lr=torch.tensor(0.1, dtype=torch.float64), sizes=[8, 4], data="mnist"),
        OmegaConf.create({"lr": 0.1, "sizes": [8, 4], "data": "mnist"}),
        Options(),
    ],
)
def test_a_configuration_of_any_kind(config: Any, tmp_path: Path) -> None:
    recorder = train(tmp_path, steps=2, config=config)
    row = harness.open_runs(tmp_path).table.iloc[0]
    assert (row["lr"], row["sizes"], row["data"]) == (0.1, "[8, 4]", "mnist")
    assert recorder.path is not None
    assert recorder.path.name == train(tmp_path / "again", steps=1, config=config).path.name  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("options", "kind", "told"),
    [
        ({"config": 3}, TypeError, "config: expected a mapping"),
        ({"config": {"seed": "zero"}}, ValueError, "'zero' as seed"),
        ({"config": {"detect": 3}}, ValueError, "3 as detect"),
        ({"name": "a/b"}, ValueError, "name: expected the name of a folder"),
        ({"name": ""}, ValueError, "name: expected the name of a folder"),
        ({"output": None, "name": "a"}, ValueError, "expected output="),
    ],
)
def test_wrong_arguments_are_refused_at_once(
    options: dict[str, Any], kind: type[Exception], told: str, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=told):
        harness.Recorder(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), **{"output": tmp_path, **options})
    with (
        pytest.raises(ValueError, match="metrics belong to a run on disk"),
        harness.Recorder(nn.ReLU()) as plain,
    ):
        plain.step(loss=1.0, accuracy=0.5)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("scale", "error", "state"),
    [(1.0, None, "finished"), (float("nan"), None, "diverged"), (1.0, KeyError, "failed")],
)
def test_how_it_ended(scale: float, error: type[Exception] | None, state: str, tmp_path: Path) -> None:
    if error is None:
        train(tmp_path, scale=scale)
    else:
        with pytest.raises(error):
            failing(tmp_path, error)
    (run,) = harness.open_runs(tmp_path)
    assert run.state == state
    assert (run.status["error"] or "").startswith("KeyError" if error else "")
    assert run.status["diverged_at"] == (1 if state == "diverged" else None)


def failing(output: Path, error: type[Exception]) -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU())
    with harness.Recorder(model, output=output, name="own") as recorder:
        model(torch.randn(5, 6))
        recorder.step()
        raise error("of the training's own")


@pytest.mark.parametrize("closed", [True, False])
def test_it_goes_on_where_its_state_was_kept(closed: bool, tmp_path: Path) -> None:
    """As if there had been no break: whether the run was concluded, or killed some steps later."""

    def steps(recorder: harness.Recorder, count: int) -> None:
        for _ in range(count):
            model.zero_grad()
            loss = model(torch.randn(4, 6)).square().mean()
            loss.backward()
            recorder.step(loss=loss)

    def made(name: str) -> tuple[nn.Module, harness.Recorder]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 1))
        return model, harness.Recorder(model, output=tmp_path, name=name, census_every=4)

    model, whole = made("whole")
    with whole:
        steps(whole, 20)
    model, first = made("cut")
    first.attach()
    steps(first, 10)
    state = first.state_dict()
    if not closed:
        steps(first, 5)
        assert first._writer is not None
        first._writer._lock.release()  # as the system does for a killed process
    first.detach()
    torch.manual_seed(0)
    model, second = made("cut")
    with torch.no_grad():
        for _ in range(10):  # the inputs that came before
            torch.randn(4, 6)
    second.load_state_dict(state)
    with second:
        steps(second, 10)
    runs = {run.name: run for run in harness.open_runs(tmp_path)}
    for name in ("census", "steps", "events"):
        pd.testing.assert_frame_equal(getattr(runs["whole"], name), getattr(runs["cut"], name))


@pytest.mark.skipif(sys.platform != "linux", reason="signals")
def test_a_killed_training_leaves_what_was_recorded(tmp_path: Path) -> None:
    program = (
        "import sys, torch, harness\n"
        "from torch import nn\n"
        "model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))\n"
        "optimizer = torch.optim.SGD(model.parameters(), lr=0.01)\n"
        "own = {'optimizer': optimizer, 'census_every': 5, 'output': sys.argv[1], 'name': 'own'}\n"
        "with harness.Recorder(model, **own) as recorder:\n"
        "    for step in range(1_000_000):\n"
        "        loss = model(torch.randn(8, 4)).square().mean()\n"
        "        optimizer.zero_grad(); loss.backward(); optimizer.step()\n"
        "        recorder.step(loss=loss)\n"
        "        if step % 5 == 4: print(step + 1, flush=True)\n"
    )
    chance = random.Random(0)
    for _ in range(int(os.environ.get("HARNESS_KILLS", "2"))):
        command = [sys.executable, "-c", program, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(chance.random())
            process.send_signal(signal.SIGKILL)
            told = process.stdout.read().split()
        (run,) = harness.open_runs(tmp_path)
        assert run.state == "running"
        assert int(run.census["step"].max()) >= int(told[-1] if told else 5)
        assert int(run.steps["step"].max()) >= int(told[-1] if told else 5) - 5
        assert runner.invoke(app, ["report", str(tmp_path)]).exit_code == 0


def test_two_processes_do_not_write_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.store.locks.PATIENCE", 0.0)
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU())
    with harness.Recorder(model, output=tmp_path, name="own") as recorder:
        model(torch.randn(5, 6))
        other = harness.Recorder(nn.Sequential(nn.Linear(6, 4), nn.ReLU()), output=tmp_path, name="own")
        with pytest.raises(RuntimeError, match="another Recorder writes"):
            other.attach()
        recorder.step()
    assert len(harness.open_runs(tmp_path)) == 1


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_run_that_cannot_be_written_stops_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk, say: said once, and the training goes on, with its history in memory."""
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU())
    recorder = harness.Recorder(model, output=tmp_path, name="own", census_every=2)
    recorder.attach()
    monkeypatch.setattr("harness.store.writer.TableWriter.append", full)
    for _ in range(6):
        model(torch.randn(5, 6))
        recorder.step()
    with pytest.warns(UserWarning, match="the run on disk: switched off after an error.*No space left"):
        recorder.detach()
    assert recorder.history()["step"].unique().tolist() == [2, 4, 6]


def test_a_run_without_a_forward_is_finished(tmp_path: Path) -> None:
    with (
        pytest.warns(UserWarning, match="it was never called"),
        harness.Recorder(nn.Sequential(nn.Linear(2, 3), nn.ReLU()), output=tmp_path),
    ):
        pass
    (run,) = harness.open_runs(tmp_path)
    assert run.state == "finished"
    assert set(run.census["state"]) == {"unobserved"}


def test_a_metric_named_as_the_count_is_refused(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    with harness.Recorder(model, output=tmp_path) as recorder:
        model(torch.ones(4, 2))
        with pytest.raises(TypeError, match="step: expected another name"):
            recorder.step(loss=1.0, step=1)
        with pytest.raises(TypeError, match="accuracy: expected a number or a tensor, but got str"):
            recorder.step(loss=1.0, accuracy="good")  # pyright: ignore[reportArgumentType]
        recorder.step(loss=1.0, accuracy=0.5)
