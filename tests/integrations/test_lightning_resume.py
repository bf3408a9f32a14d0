"""NeuronHealth over several fits: checkpoints, fits that go on or break off, several processes."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning_fits import (
    BATCH,
    QUIET,
    Manual,
    Net,
    by_hand,
    data,
    loader,
    named,
    network,
    trainer,
    untouched,
)
from pandas.testing import assert_frame_equal
from torch import Tensor
from torch.utils.data import DataLoader

import harness
from harness.integrations.lightning import NeuronHealth

pytestmark = QUIET


def test_a_checkpoint_goes_on_in_the_middle_of_a_window(tmp_path: Path) -> None:
    def parts() -> tuple[Net, NeuronHealth, ModelCheckpoint]:
        saver = ModelCheckpoint(tmp_path, every_n_train_steps=12, save_top_k=-1, filename="{step}")
        return Net(), NeuronHealth(census_every=5), saver

    model, whole, saver = parts()
    trainer(whole, saver, enable_checkpointing=True).fit(model, loader())
    path = tmp_path / "step=12.ckpt"
    torch.load(path, weights_only=True)
    other, health, saver = parts()
    host = trainer(health, saver, enable_checkpointing=True)
    host.fit(other, loader(), ckpt_path=path, weights_only=True)
    assert host.global_step == 24
    assert_frame_equal(health.history(), whole.history())
    assert health.verdict == whole.verdict
    assert torch.equal(other.net[0].weight, model.net[0].weight)  # type: ignore[arg-type]


def test_a_checkpoint_without_our_state_begins_at_its_step(tmp_path: Path) -> None:
    host = trainer(max_epochs=1)
    host.fit(Net(), loader())
    host.save_checkpoint(tmp_path / "a.ckpt")
    health = NeuronHealth(census_every=5)
    trainer(health).fit(Net(), loader(), ckpt_path=tmp_path / "a.ckpt", weights_only=True)
    assert health.history()["step"].unique().tolist() == [15, 20, 24]


def test_two_callbacks_on_two_modules(tmp_path: Path) -> None:
    one, two = NeuronHealth(census_every=3, module="first"), NeuronHealth(census_every=4, module="second")
    host = trainer(one, two)
    host.fit(Manual(), loader())
    host.save_checkpoint(tmp_path / "both.ckpt")
    assert one.history()["step"].unique().tolist() == [3, 6, 9, 12]
    assert two.history()["step"].unique().tolist() == [4, 8, 12]
    kept = torch.load(tmp_path / "both.ckpt", weights_only=True)["callbacks"]
    assert [kept[health.state_key]["steps"] for health in (one, two)] == [12, 12]


def test_several_fits() -> None:
    health = NeuronHealth(census_every=5)
    host, model = trainer(health), Net()
    host.fit(model, loader())
    host.fit_loop.max_epochs = 3
    host.fit(model, loader())  # the same trainer goes on
    assert health.history()["step"].unique().tolist() == [5, 10, 15, 20, 24, 25, 30, 35, 36]
    trainer(health).fit(Net(), loader())  # another begins anew
    assert_frame_equal(health.history(), named(by_hand(network())))


def test_an_exception_leaves_nothing_behind() -> None:
    class Breaks(Net):
        def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
            if batch_idx == 7:
                raise RuntimeError("mine")
            return super().training_step(batch, batch_idx)

    health, model = NeuronHealth(census_every=5), Breaks()
    host = trainer(health)
    with pytest.raises(RuntimeError, match="mine"):
        host.fit(model, loader())
    untouched(model, host)
    assert health.history()["step"].unique().tolist() == [5, 7]


def test_two_processes_are_one_census(tmp_path: Path) -> None:
    program = [sys.executable, "-W", "ignore", __file__, str(tmp_path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(harness.__file__).parents[1])}
    done = subprocess.run(program, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    said = "Neuron health at step 12."
    assert done.stdout.count(said) == 4  # two callbacks in the whole fit and the resumed, on rank 0 alone
    assert "counted on every rank by itself" not in done.stderr
    alone = by_hand(network(), batch=2 * BATCH)
    exact = ["evidence", "step", "site", "unit", "n", "active", "state"]
    for rank in (0, 1):
        for module, expected in (("None", named(alone)), ("net", alone)):
            found = pd.read_parquet(tmp_path / f"{rank}-{module}.parquet")
            assert_frame_equal(found[exact], expected[exact])
            assert_frame_equal(pd.read_parquet(tmp_path / f"{rank}-{module}-resumed.parquet"), found)


def distributed(folder: Path) -> None:
    """What each of two processes does: a fit, and one that goes on from its checkpoint."""
    warnings.filterwarnings("always", message=".*by itself.*")
    saver = ModelCheckpoint(folder, every_n_train_steps=6, save_top_k=-1, filename="{step}")
    for name, callbacks, path in (("", [saver], None), ("-resumed", [], folder / "step=6.ckpt")):
        watched = {module: NeuronHealth(census_every=5, module=module) for module in (None, "net")}
        two: dict[str, Any] = {"strategy": "ddp", "devices": 2, "use_distributed_sampler": False}
        host = trainer(*watched.values(), *callbacks, enable_checkpointing=bool(callbacks), **two)
        mine = data()[int(os.environ.get("LOCAL_RANK", 0)) :: 2]
        host.fit(Net(), DataLoader(mine, batch_size=BATCH), ckpt_path=path, weights_only=True)  # type: ignore[arg-type]
        for module, health in watched.items():
            health.history().to_parquet(folder / f"{host.global_rank}-{module}{name}.parquet")


if __name__ == "__main__":
    distributed(Path(sys.argv[1]))
