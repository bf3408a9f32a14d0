"""`harness.prescribe` on runs of ours: the cure follows the fault, is tried, continued, and never recited."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import harness
from harness.config import compose, to_mapping
from harness.config.command import overrides_of
from harness.store.runs import Run
from harness.sweeps.job import run_job
from harness.tools import app
from harness.trials.cures import cures

SHORT = ("train.epochs=8", "model.width=32", "model.depth=2", "record.tensorboard=false")


def trained(folder: Path, *words: str) -> Run:
    return Run(run_job(compose([*SHORT, *words, f"output={folder}"])).path)


def test_every_cure_is_a_command_line_of_its_own() -> None:
    words = ["optim=adam", "bias.offset=-2", "init.mean=-1", "data.shift=3", "data.label_noise=0.5"]
    words += ["optim.weight_decay=0.1", "data.permute_inputs_every=2", "activation=relu"]
    spec = compose(words)
    found = cures(spec, "decay", 3.3, 500)
    assert found[0].name == "no decay"
    changed = {cure.name: cure.apply(spec) for cure in found}
    assert all(compose(overrides_of(to_mapping(other))) == other for other in changed.values())
    assert all(other != spec for other in changed.values())
    assert len({repr(other) for other in changed.values()}) == len(found) >= 20
    assert changed["centred inputs"].data.shift == pytest.approx(-0.3)
    assert changed["learning rate / 10"].optim.lr == pytest.approx(spec.optim.lr / 10)
    assert (
        changed["He weights and zero bias"].bias.offset == changed["He weights and zero bias"].init.mean == 0
    )
    healthy = {cure.name for cure in cures(compose([]), "none", 0.0, 500)}
    assert not healthy & {"zero bias", "He weights", "no decay", "true labels", "centred inputs"}


def test_the_cure_of_a_fault_is_found_tried_and_written_down(tmp_path: Path) -> None:
    run = trained(tmp_path, "bias.offset=-3")
    said: list[str] = []
    found = harness.prescribe(run, say=said.append)
    assert found.label == "bias_init"
    assert found.table["verdict"].eq("helps").any()
    rows = {row["cure"]: row for row in found.table.to_dict("records")}
    assert rows[found.cure]["metric"] > 0.6 > 0.3 > rows["as it was"]["metric"]
    assert rows[found.cure]["low"] > 0
    assert len(said) == 3
    assert f"Recommended: {found.cure}." in found.text
    words = shlex.split(found.command)
    applied = compose(words[1:])
    assert any(word.startswith(("bias", "activation", "init", "remedy", "model.norm")) for word in words)
    assert found.command.startswith("harness ")
    assert applied.train.epochs == 8
    assert applied != compose([*SHORT, "bias.offset=-3", f"output={tmp_path}"])
    kept = json.loads((run.path / "prescription.json").read_text())
    assert (kept["cure"], kept["command"]) == (found.cure, found.command)
    trials = {path.name: path.stat().st_mtime_ns for path in (run.path / "prescribe").rglob("status.json")}
    again = harness.prescribe(str(run.path))  # what has a result is not trained again
    after = {path.name: path.stat().st_mtime_ns for path in (run.path / "prescribe").rglob("status.json")}
    assert after == trials
    assert (again.text, again.command) == (found.text, found.command)
    assert len(harness.open_runs(tmp_path)) == 1  # the trials are no runs of the folder
    page = tmp_path / "report.html"
    told = CliRunner().invoke(app, ["report", str(run.path), "--out", str(page)])
    assert told.exit_code == 0
    assert "Cures that were tried" in page.read_text()
    assert found.cure in page.read_text()


def test_the_cure_follows_the_data_not_the_name(tmp_path: Path) -> None:
    label = {}
    for name, words in {"bias": "bias.offset=-3", "weights": "init.mean=-3"}.items():
        found = harness.prescribe(trained(tmp_path, words))
        label[name] = found.label
        assert found.table.set_index("cure")["verdict"][found.cure] == "helps"
        spec = compose(shlex.split(found.command)[1:])
        assert run_accuracy(spec) > 0.8
    assert label == {"bias": "bias_init", "weights": "weight_init"}


def run_accuracy(spec: Any) -> float:
    return float(Run(run_job(spec).path).final["accuracy"])


def test_where_nothing_can_be_learned_none_helps(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(600, 20)).astype("float32"), draw.integers(0, 10, 600)
    np.savez(tmp_path / "noise.npz", x_train=x[:400], y_train=y[:400], x_test=x[400:], y_test=y[400:])
    data = ("data=arrays", f"data.path={tmp_path / 'noise.npz'}")
    found = harness.prescribe(trained(tmp_path / "runs", *data, "bias.offset=-6"))
    assert found.label == "bias_init"
    assert (found.cure, found.command) == ("", "")
    assert "cures that were tried helped" in found.text


def test_a_healthy_run_has_nothing_to_cure(tmp_path: Path) -> None:
    run = trained(tmp_path)
    found = harness.prescribe(run)
    assert (found.label, found.cure, found.command) == ("none", "", "")
    assert found.text.startswith("Nothing to cure.")
    assert not (run.path / "prescribe").exists()


def test_a_run_that_learned_nothing_is_not_called_healthy(tmp_path: Path) -> None:
    found = harness.prescribe(trained(tmp_path, "optim.lr=1e-9", "optim.weight_decay=0.1", "train.epochs=2"))
    assert found.label == "unknown"
    assert found.text.startswith("Few units are dead, but the training gains nothing on the held-out data.")
    assert not found.table.empty


def test_bad_input_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no run in"):
        harness.prescribe(tmp_path)
    with pytest.raises(TypeError, match="expected a run, its folder or a function, but got int"):
        harness.prescribe(3)
    run = trained(tmp_path, "bias.offset=-3")
    with pytest.raises(ValueError, match=r"budget: expected at least one run's own time, but got 0\.5"):
        harness.prescribe(run, budget=0.5)
    with pytest.raises(ValueError, match=r"budget: .* but got nan"):
        harness.prescribe(run, budget=float("nan"))
    with pytest.raises(ValueError, match="seeds: expected at least 2"):
        harness.prescribe(run, seeds=1)
    off = trained(tmp_path / "off", "record=off")
    with pytest.raises(ValueError, match="nothing was recorded"):
        harness.prescribe(off)
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU())
    with harness.Recorder(model, output=tmp_path / "own", name="mine") as recorder:
        model(torch.ones(3, 2)).sum().backward()
        recorder.step()
    with pytest.raises(ValueError, match="a function that makes the training"):
        harness.prescribe(tmp_path / "own" / "mine")
    told = CliRunner().invoke(app, ["prescribe", str(run.path), "--budget", "much"])
    assert told.exit_code == 2
    assert "expected a number of times" in told.output


def test_the_command_prints_the_cure_alone_on_a_line(tmp_path: Path) -> None:
    run = trained(tmp_path, "bias.offset=-3")
    told = CliRunner().invoke(app, ["prescribe", str(run.path), "--json", str(tmp_path / "found.json")])
    assert told.exit_code == 0, told.output
    lines = [line for line in told.output.splitlines() if line.startswith("harness ")]
    found = json.loads((tmp_path / "found.json").read_text())
    assert lines == [found["command"]]


DECAY = ("optim=momentum", "optim.lr=0.02", "optim.weight_decay=0.1", "train.epochs=4", "model.width=64")


def test_trials_begin_at_the_last_healthy_census(tmp_path: Path) -> None:
    run = trained(tmp_path, *DECAY)
    found = harness.prescribe(run, seeds=2, begin="healthy")
    assert found.cure
    assert "no decay" in set(found.table["cure"])
    assert not found.table["cure"].str.contains("norm|bias$|weights").any()
    words = shlex.split(found.command)[1:]
    spec = compose(words)
    assert (spec.init.name, spec.bias.offset) == ("stored", 0)
    assert run_job(spec).state == "finished"


def test_where_no_census_was_healthy_it_says_so(tmp_path: Path) -> None:
    run = trained(tmp_path, "bias.offset=-3")
    with pytest.raises(ValueError, match=r"begin=healthy: the run was healthy at no census\. Begin at"):
        harness.prescribe(run, begin="healthy")
    with pytest.raises(ValueError, match="begin: expected start or healthy, but got now"):
        harness.prescribe(run, begin="now")
