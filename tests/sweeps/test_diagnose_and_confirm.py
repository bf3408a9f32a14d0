"""Why stored runs are as they are: from their evidence, from training again, from an experiment."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import harness
from harness.config import compose, restore, to_mapping
from harness.store.evidence import read_evidence
from harness.sweeps.job import run_job
from harness.trials.confirm import ORIGINAL, confirm, factors
from tests.test_cli import run

SMALL = ["model.width=32", "model.depth=2", "record.tensorboard=false"]


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["optim=adam", "model=cnn", "train.max_steps=5", "optim.betas=[0.8,0.99]"],
        ["model=transformer", "activation=leaky_relu", "bias=torch_default", "schedule=warmup"],
        ["optim=momentum", "schedule=cosine", "dtype=float64", "record=off"],
        ["data=synthetic", "init=rai", r"output='it\'s a \ folder'", "schedule=step"],
        ["model=custom", "model.target=torch.nn:Linear"],
        ["model=custom", "model.target=torch.nn:Linear", "init=kaiming_normal", "bias=zero"],  # the defaults
    ],
)
def test_a_stored_configuration_is_the_same_specification_again(overrides: list[str]) -> None:
    spec = compose(overrides)
    assert to_mapping(restore(to_mapping(spec))) == to_mapping(spec)


def test_a_run_on_its_own_keeps_its_evidence(tmp_path: Path) -> None:
    outcome = run_job(compose([*SMALL, "bias.offset=-2", "train.epochs=2", f"output={tmp_path}"]))
    told = harness.diagnose(outcome.path)
    assert told.label == "bias_init"
    found = harness.open_runs(tmp_path)[0]
    assert found.status["final"]["cause"] == "bias_init"
    assert found.status["diagnosis"] == str(told)
    tables = read_evidence(outcome.path)
    assert tables is not None
    steps = found.steps
    assert tables["steps"]["step"].tolist() == steps["step"].tolist()
    assert np.allclose(tables["steps"]["loss"], steps["loss"])
    assert np.allclose(tables["steps"]["lr"], steps["lr"])


def test_evidence_changes_no_result(tmp_path: Path) -> None:
    plain, kept = (
        run_job(compose([*SMALL, "train.epochs=2", f"record.evidence={word}", f"output={tmp_path / word}"]))
        for word in ("false", "true")
    )
    assert plain.path.name == kept.path.name
    assert harness.open_runs(plain.path)[0].census.equals(harness.open_runs(kept.path)[0].census)
    assert read_evidence(plain.path) is None


def test_a_run_of_a_sweep_is_trained_once_more_to_be_diagnosed(tmp_path: Path) -> None:
    assert run("-m", *SMALL, "optim.lr=2", "seed=0,1", "train.epochs=3", f"output={tmp_path}") == 0
    first = harness.open_runs(tmp_path)[0]
    assert read_evidence(first.path) is None
    told = harness.diagnose(first)
    assert told.label == "step_size"
    assert read_evidence(first.path) is not None
    assert str(harness.diagnose(first)) == str(told)


def test_what_cannot_be_diagnosed_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no run"):
        harness.diagnose(tmp_path)
    outcome = run_job(compose([*SMALL, "record=off", "train.max_steps=3", f"output={tmp_path}"]))
    with pytest.raises(ValueError, match="nothing was recorded"):
        harness.diagnose(outcome.path)


def test_factors_are_those_that_are_not_normal() -> None:
    spec = compose(["bias.offset=-1", "optim.weight_decay=0.1", "data.shift=2"])
    found = factors(spec, mean=2.3)
    assert {"zero bias", "no decay", "centred inputs", "learning rate / 10"} <= set(found)
    assert "true labels" not in found
    assert "He weights" not in found
    assert found["centred inputs"].data.shift == pytest.approx(-0.3)
    assert found["zero bias"].bias.offset == 0
    assert found["zero bias"].optim == spec.optim


@pytest.mark.parametrize(
    ("fault", "factor", "label"),
    [
        ("bias.offset=-2", "zero bias", "bias_init"),
        ("data.shift=4", "centred inputs", "input_offset"),
        ("optim.lr=3", "learning rate / 10", "step_size"),
    ],
)
def test_the_right_factor_removes_the_deaths(fault: str, factor: str, label: str, tmp_path: Path) -> None:
    outcome = run_job(compose([*SMALL, fault, "train.epochs=3", f"output={tmp_path}"]))
    found = confirm(harness.open_runs(outcome.path)[0])
    arms = found.arms.set_index("factor")
    assert arms["removed"][factor] > 0.8
    assert arms["removed"][ORIGINAL] == 0
    assert found.label == label
    assert f"{found.steps:,} steps" in str(found)
    again = confirm(harness.open_runs(outcome.path)[0])  # nothing is trained again
    assert again.arms.equals(found.arms)


def test_a_healthy_run_has_nothing_to_confirm(tmp_path: Path) -> None:
    outcome = run_job(compose([*SMALL, "train.epochs=2", f"output={tmp_path}"]))
    with pytest.raises(ValueError, match="nothing to confirm"):
        confirm(harness.open_runs(outcome.path)[0])
    with pytest.raises(ValueError, match="at least 2"):
        confirm(harness.open_runs(outcome.path)[0], seeds=1)
