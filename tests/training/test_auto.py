"""`remedy=auto`: the diagnosis chooses, acts are told with their reason, interruptions leave no trace."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest
import torch
from interrupted import assert_continues

from harness.config import ConfigError, RunSpec, compose, run_folder
from harness.store.runs import Run
from harness.sweeps.cohorts import why_not
from harness.sweeps.job import check_jobs, run_job

SMALL = ["data.subset=200", "train.epochs=3", "train.checkpoint_seconds=0", "record.tensorboard=false"]
OWN = ["remedy=auto", "remedy.every=3", "record.census_every=3", "model.width=12", "model.depth=2"]
FAULTS = {
    "mlp": ["bias.offset=-2", "optim=adam", "model.norm=batch", "optim.lr=0.05"],
    "step": ["optim.lr=4"],
    "decay": ["optim=momentum", "optim.lr=0.05", "optim.weight_decay=0.5"],
    "cnn": ["model=cnn", "model.channels=4", "model.width=8", "bias.offset=-3", "optim=momentum"],
}


def spec(out: Path, *overrides: str) -> RunSpec:
    words = {word.partition("=")[0]: word for word in (*SMALL, *OWN, *overrides)}
    if "model=cnn" in overrides:
        del words["model.depth"]
    return compose([f"output={out}", *words.values()])


def events(of: RunSpec) -> pd.DataFrame:
    return Run(run_folder(of)).events


@pytest.mark.parametrize("fault", FAULTS)
def test_an_interrupted_run_continues_as_if_nothing_had_been(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, torn = (spec(tmp_path / name, *FAULTS[fault]) for name in ("whole", "torn"))
    one = assert_continues(whole, torn, (1, 4, 6, 11), monkeypatch)
    assert "auto" in set(one.events["kind"])


def test_every_act_is_told_with_its_reason(tmp_path: Path) -> None:
    run = spec(tmp_path, *FAULTS["decay"])
    run_job(run)
    told = events(run)
    choices = told[told["kind"] == "auto"]
    assert choices["detail"].str.contains("% of the units dead, cause ").all()
    acts = told[told["kind"].isin(["bias_lift", "redo", "redraw", "lower_rate", "no_decay"])]
    assert len(acts)
    assert set(acts["step"]) <= set(choices["step"])
    steps = choices["step"].diff().dropna()
    assert (steps >= 3).all()
    census = Run(run_folder(run)).census
    assert set(choices["step"]) <= set(census["step"])
    assert choices["step"].max() < Run(run_folder(run)).steps["step"].max()


def test_a_lowered_rate_multiplies_the_schedules(tmp_path: Path) -> None:
    run = spec(tmp_path, *FAULTS["step"], "schedule=cosine")
    run_job(run)
    steps, told = Run(run_folder(run)).steps, events(run)
    at = told.loc[told["kind"] == "lower_rate", "step"]
    assert len(at)
    total = steps["step"].max()
    for step, lr in zip(steps["step"].tolist(), steps["lr"].tolist(), strict=True):
        planned = 4 * (1 + math.cos(math.pi * (step - 1) / (total - 1))) / 2
        assert lr == pytest.approx(planned / 3 ** int((at < step).sum()), abs=1e-9)


def test_decay_goes_and_does_not_come_back(tmp_path: Path) -> None:
    run = spec(tmp_path, *FAULTS["decay"])
    run_job(run)
    assert "no_decay" in set(events(run)["kind"])
    kept = torch.load(run_folder(run) / "checkpoint.pt", weights_only=True)
    assert kept["optimizer"]["param_groups"][0]["weight_decay"] == 0.0


def test_a_healthy_run_is_the_run_without_a_remedy(tmp_path: Path) -> None:
    words = [f"output={tmp_path}", *SMALL, "record.census_every=3"]
    auto, none = compose([*words, "remedy=auto"]), compose(words)
    run_job(auto)
    run_job(none)
    one, two = Run(run_folder(auto)), Run(run_folder(none))
    for name in ("steps", "census", "events"):
        pd.testing.assert_frame_equal(getattr(one, name), getattr(two, name), check_exact=True)


def test_evidence_that_is_not_kept_is_gathered_all_the_same(tmp_path: Path) -> None:
    kept, bare = (
        spec(tmp_path / name, *FAULTS["mlp"], f"record.evidence={name}") for name in ("true", "false")
    )
    run_job(kept)
    run_job(bare)
    assert events(kept).equals(events(bare))
    assert Run(run_folder(kept)).evidence is not None
    assert Run(run_folder(bare)).evidence is None


def test_it_is_trained_alone_and_a_sweep_says_why() -> None:
    assert why_not(compose(["remedy=auto"])).startswith("remedy=auto: its diagnosis")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["record=off"], "remedy: auto needs censuses"),
        (["remedy.above=1"], r"remedy\.above: expected a number at least 0 and below 1"),
        (["remedy.every=0"], r"remedy\.every: expected a whole number at least 1"),
    ],
)
def test_bad_values_name_their_key(overrides: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        compose(["remedy=auto", *overrides])


def test_a_network_without_units_that_it_could_act_on_is_refused(tmp_path: Path) -> None:
    words = ["remedy=auto", "model=rnn", f"output={tmp_path}"]
    with pytest.raises(ConfigError, match="auto finds no units"):
        check_jobs([compose(words)])
