"""`remedy=auto`: the diagnosis chooses, every act is told with its reason, and nothing depends on interruptions."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch

from harness.config import ConfigError, RunSpec, compose, run_folder
from harness.store.runs import Run
from harness.sweeps.cohorts import why_not
from harness.sweeps.job import run_job
from harness.training import loop

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
    run_job(whole)
    honest = loop._Run._one_step
    for stop in (1, 4, 6, 11):

        def dying(self: loop._Run, stop: int = stop) -> bool:
            if self.step >= stop:
                raise OSError
            return honest(self)

        monkeypatch.setattr(loop._Run, "_one_step", dying)
        assert run_job(torn).state == "failed"
    monkeypatch.setattr(loop._Run, "_one_step", honest)
    assert run_job(torn).state == "finished"
    one, two = Run(run_folder(whole)), Run(run_folder(torn))
    for name in ("steps", "census", "events"):
        pd.testing.assert_frame_equal(getattr(one, name), getattr(two, name), check_exact=True)
    p, q = (torch.load(run_folder(of) / "checkpoint.pt", weights_only=True)["model"] for of in (whole, torn))
    assert all(torch.equal(p[name], q[name]) for name in p)
    assert "auto" in set(one.events["kind"])
