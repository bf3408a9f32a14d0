"""`init=stored`: a run begins with the weights of another one, alone and in a stack."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from harness.config import ConfigError, compose
from harness.config.identity import run_id
from harness.sweeps.job import run_job
from harness.sweeps.sweep import plan_sweep, run_sweep
from harness.training.initialisation import initialise
from harness.training.models import build

SMALL = ("model.width=12", "model.depth=2", "record.tensorboard=false")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a short run."""
    words = [*SMALL, "train.max_steps=30", f"output={tmp_path_factory.mktemp('first')}"]
    return run_job(compose(words)).path / "checkpoint.pt"


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["model"]


def test_it_begins_where_the_other_ended(first: Path, tmp_path: Path) -> None:
    spec = compose([*SMALL, "init=stored", f"init.path={first}", "bias=torch_default", f"output={tmp_path}"])
    model = build(spec, (64,), 10)
    initialise(model, spec)
    stored = weights(first)
    assert all(torch.equal(value, stored[name]) for name, value in model.state_dict().items())
    saved = tmp_path / "state.pt"
    torch.save(stored, saved)  # a state_dict alone does as well
    spec = compose([*SMALL, "init=stored", f"init.path={saved}"])
    other = build(spec, (64,), 10)
    initialise(other, spec)
    assert all(torch.equal(value, stored[name]) for name, value in other.state_dict().items())


def test_alone_and_in_a_stack_it_is_the_same(first: Path, tmp_path: Path) -> None:
    common = [*SMALL, "init=stored", f"init.path={first}", "train.max_steps=20"]
    stacked = [compose([*common, f"seed={seed}", f"output={tmp_path / 'stack'}"]) for seed in (1, 2)]
    sweep = plan_sweep(stacked)
    assert [len(task.specs) for task in sweep.tasks] == [2]
    run_sweep(sweep)
    for spec in stacked:
        alone = run_job(compose([*common, f"seed={spec.seed}", f"output={tmp_path / 'alone'}"])).path
        for name, value in weights(alone / "checkpoint.pt").items():
            there = weights(tmp_path / "stack" / alone.name / "checkpoint.pt")[name]
            torch.testing.assert_close(there, value, atol=5e-6, rtol=1e-5)


def test_its_content_is_part_of_the_run(first: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copied.pt"
    copied.write_bytes(first.read_bytes())
    here, there = (compose([*SMALL, "init=stored", f"init.path={path}"]) for path in (first, copied))
    assert run_id(here) == run_id(there)
    torch.save({name: value + 1 for name, value in weights(first).items()}, copied)
    assert run_id(here) != run_id(there)


def test_what_does_not_fit_is_refused(first: Path) -> None:
    with pytest.raises(ConfigError, match=r"init: stored keeps weights and biases as they are"):
        compose([*SMALL, "init=stored", f"init.path={first}", "bias.offset=-1"])
    with pytest.raises(ConfigError, match=r"init\.path: expected an existing file of weights, but got nix"):
        run_id(compose([*SMALL, "init=stored", "init.path=nix"]))
    wide = compose([*SMALL[1:], "init=stored", f"init.path={first}", "model.width=13"])
    told = (
        r"init\.path: expected weights of this network, .* of shape \(13, 64\), but got of shape \(12, 64\)"
    )
    with pytest.raises(ConfigError, match=told):
        initialise(build(wide, (64,), 10), wide)
