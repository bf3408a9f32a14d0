"""What NeuronHealth tells: metrics for Lightning's loggers, the verdict, warnings and errors."""

from __future__ import annotations

import csv
import doctest
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning_fits import QUIET, Net, loader, loss, trainer
from torch import Tensor

from harness.integrations.lightning import NeuronHealth

pytestmark = QUIET


def test_metrics_reach_logger_progress_bar_and_checkpoint_monitor(tmp_path: Path) -> None:
    class Bar(Net):
        shown: list[Any]

        def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
            self.shown.append(self.trainer.progress_bar_metrics.get("dead_fraction"))

    logger = CSVLogger(tmp_path)
    health = NeuronHealth(census_every=5, per_site=True)
    saver = ModelCheckpoint(tmp_path, monitor="dead_fraction", mode="min")
    host = trainer(health, saver, logger=logger, enable_checkpointing=True, log_every_n_steps=7)
    model = Bar()
    model.shown = []
    host.fit(model, loader())
    assert logger.log_dir
    written = Path(logger.log_dir, "metrics.csv").read_text().splitlines()
    rows = [row for row in csv.DictReader(written) if row["dead_fraction"]]
    census = health.history()
    dead = census.assign(dead=census["state"] == "dead").groupby("step")["dead"].mean()
    assert {int(r["step"]): float(r["dead_fraction"]) for r in rows} == pytest.approx(dead.to_dict())
    assert all(float(r["dead_fraction/net.1"]) >= 0.25 for r in rows)
    assert host.callback_metrics["dead_fraction"] == pytest.approx(dead[20])
    assert model.shown[6] == pytest.approx(dead[5])
    assert saver.best_model_score is not None
    assert float(saver.best_model_score) == pytest.approx(min(dead[10], dead[20]))


def test_the_verdict_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    health = NeuronHealth(census_every=5)
    trainer(health).fit(Net(), loader())
    assert health.verdict is not None
    assert capsys.readouterr().out == f"Neuron health at step 24. {health.verdict.text}\n"
    trainer(NeuronHealth(say=False)).fit(Net(), loader())
    assert capsys.readouterr().out == ""


def test_a_module_that_is_never_called_gives_no_verdict() -> None:
    class Sidestep(Net):
        def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
            one, _, two, *_ = self.net.parameters()
            return loss(batch @ one.T @ two.T)

    health = NeuronHealth(census_every=None, module="net")
    with pytest.warns(UserWarning, match="unobserved: it was never called"):
        trainer(health).fit(Sidestep(), loader())
    assert health.verdict is not None
    assert health.verdict.text.startswith("No verdict: Nothing was observed")


def test_an_activation_in_the_training_step_is_named_aloud() -> None:
    class Hinge(Net):
        def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
            return F.relu(1 - self.net(batch)).mean()

    with pytest.warns(UserWarning, match="training_step:relu: called in training_step itself, and counted"):
        trainer(NeuronHealth(census_every=5)).fit(Hinge(), loader())


def test_a_name_that_is_no_submodule() -> None:
    with pytest.raises(ValueError, match="module: expected a submodule such as net, but got 'nte'"):
        trainer(NeuronHealth(module="nte")).fit(Net(), loader())


def test_a_probe_needs_a_forward() -> None:
    with pytest.raises(ValueError, match="probe: Net has no forward"):
        trainer(NeuronHealth(probe=torch.randn(4, 6))).fit(Net(), loader())


def test_arguments_are_checked_at_once() -> None:
    with pytest.raises(ValueError, match="census_every: expected a whole number above 0"):
        NeuronHealth(census_every=0)
    with pytest.raises(ValueError, match="healthy: expected a share"):
        NeuronHealth(healthy=2)
    with pytest.raises(TypeError, match="gate_epsilon"):
        NeuronHealth(gate_epsilon=1)
    with pytest.raises(ValueError, match="expected the keys steps, windows, history"):
        NeuronHealth().load_state_dict({"nonsense": 1})


def test_the_examples_in_the_docstrings() -> None:
    import harness.integrations.lightning as module

    failed, tried = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert tried
    assert not failed


def test_without_the_library_the_message_names_the_extra() -> None:
    code = (
        "import sys; sys.modules.update({'lightning': None, 'lightning.pytorch': None,"
        " 'pytorch_lightning': None})\nimport harness.integrations.lightning"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'dying-relu-harness[lightning]'" in done.stderr
