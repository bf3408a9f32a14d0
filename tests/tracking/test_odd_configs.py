"""Configurations, names and folders as users have them: kept as they are, or refused with their key."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

import harness
from harness.store.folder import RunFolder
from harness.tracking.config import plain_config


def train(output: Any, steps: int = 6, **options: Any) -> harness.Recorder:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    with harness.Recorder(model, output=output, census_every=2, tensorboard=False, **options) as recorder:
        for _ in range(steps):
            model(torch.randn(16, 4)).square().mean().backward()
            recorder.step(loss=1.0)
    return recorder


def cycle() -> dict[str, Any]:
    config: dict[str, Any] = {"a": 1}
    config["me"] = config
    return config


class Speechless:
    def __repr__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({1: "a", "1": "b"}, "two keys are '1'"),
        ({"a": {"b": 1}, "a.b": 2}, "two keys are 'a.b'"),
        ({"x": {"a": {"b": 1}, "a.b": 2}}, "two keys are 'x.a.b'"),
        (cycle(), "expected at most 16 levels"),
        ({"optim": {"w": Speechless()}}, r"optim.w cannot be kept \(no words\)"),
        (OmegaConf.create({"m": "???"}), r"m cannot be kept \(Missing mandatory value"),
        (OmegaConf.create({"a": "${b}", "b": "${a}"}), "a cannot be kept"),
        ({"i": 10**5000}, "expected numbers of less than 64 bits, but i has more"),
        ({"s": "x" * 300_000}, "expected at most 262,144 characters, but got 300,009"),
        ({"seed": "abc"}, "as seed"),
    ],
)
def test_what_cannot_be_kept_is_refused_by_its_key(config: Any, told: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"config: .*{told}"):
        train(tmp_path / "runs", config=config)
    assert not (tmp_path / "runs").exists()


def test_odd_values_become_words() -> None:
    config = {
        "dtype": np.dtype("f4"),
        "lr": np.float64(0.5),
        "width": torch.tensor(3),
        "name": "\ud800",
        "layer": nn.ReLU,
        "act": nn.functional.relu,
        "missing": float("inf"),
    }
    assert plain_config(config) == {
        "dtype": "float32",
        "lr": 0.5,
        "width": 3,
        "name": "\\ud800",
        "layer": "torch.nn.modules.activation.ReLU",
        "act": "torch.nn.functional.relu",
        "missing": float("inf"),
    }


SCRIPT = """
import argparse, functools
from harness.tracking.config import plain_config, run_name
def main(): pass
config = {"tags": {"alpha", "beta", "gamma"}, "f": main, "p": functools.partial(main), "o": object()}
print(run_name({}, plain_config(argparse.Namespace(**config))))
"""


def test_the_name_is_the_same_in_every_process() -> None:
    names = {
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(names) == 1


@pytest.mark.parametrize("name", [".hidden", ".sweeps", "", "..", "a/b", "con\0d", "\ud800"])
def test_names_that_no_command_finds_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="name: expected"):
        train(tmp_path, name=name)


@pytest.mark.parametrize(
    ("argument", "value"), [("output", 5), ("output", b"x"), ("name", 5), ("name", b"x")]
)
def test_arguments_of_other_types_are_named(argument: str, value: Any, tmp_path: Path) -> None:
    options = {"output": tmp_path, argument: value}
    with pytest.raises(TypeError, match=f"{argument}: expected"):
        train(**options)


def test_keys_named_as_columns_of_a_run_stand_beside_them(tmp_path: Path) -> None:
    train(tmp_path, config={"status": "failed", "run": "x", "path": 1, "final": {"accuracy": 0.5}})
    (row,) = harness.open_runs(tmp_path).table.to_dict("records")
    assert (row["status"], row["config.status"], row["config.run"]) == ("finished", "failed", "x")
    assert row["config.final.accuracy"] == 0.5
    assert row["final.dead"] == 0


def test_files_of_ones_own_stay(tmp_path: Path) -> None:
    recorder = train(tmp_path, name="mine")
    assert recorder.path is not None
    for name in ("checkpoint.pt", "error.txt", "notes.md"):
        (recorder.path / name).write_text("mine")
    train(tmp_path, name="mine", steps=2)
    assert {(recorder.path / name).read_text() for name in ("checkpoint.pt", "error.txt", "notes.md")} == {
        "mine"
    }
    (run,) = harness.open_runs(tmp_path)
    assert run.steps["step"].tolist() == [1, 2]
    assert run.status["steps"] == 2


@pytest.mark.parametrize("foreign", ["config.yaml", "status.json", "a run"])
def test_a_folder_of_somebody_else_is_left_alone(foreign: str, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "mine")
    if foreign == "a run":
        folder.write_config({"seed": 0})
        folder.write_status("finished")
    else:
        (folder.path / foreign).write_text("{}")
    before = {path.name: path.read_bytes() for path in folder.path.iterdir()}
    for _ in range(2):  # nothing is held after the first error
        with pytest.raises(FileExistsError, match="that no Recorder has made: give another name"):
            train(tmp_path, name="mine")
    assert {path.name: path.read_bytes() for path in folder.path.iterdir() if path.name in before} == before


def test_a_state_that_is_saved_has_its_steps_on_disk(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    recorder = harness.Recorder(model, output=tmp_path, name="a", census_every=None)
    recorder.attach()
    for step in range(7):
        model(torch.randn(4, 4)).sum().backward()
        recorder.step(loss=float(step))
    state = recorder.state_dict()
    (run,) = harness.open_runs(tmp_path)  # as after a kill at this moment
    assert run.steps["step"].tolist() == list(range(1, 8))
    recorder.detach()
    again = harness.Recorder(model, output=tmp_path, name="a", census_every=None)
    again.load_state_dict(state)
    with again:
        model(torch.randn(4, 4)).sum().backward()
        again.step(loss=7.0)
    (run,) = harness.open_runs(tmp_path)
    assert run.steps["loss"].tolist() == [float(step) for step in range(8)]


def test_a_namespace_of_argparse(tmp_path: Path) -> None:
    train(tmp_path, config=argparse.Namespace(lr=0.1, func=train))
    (row,) = harness.open_runs(tmp_path).table.to_dict("records")
    assert row["lr"] == 0.1
    assert row["func"].endswith("train")
