"""The callbacks keep a training as a run on disk, and can end it."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import OPTConfig, OPTForCausalLM, Trainer, TrainingArguments

import harness
from harness.integrations.lightning import NeuronHealth
from harness.integrations.lightning import StopOnDeadUnits as LightningStop
from harness.integrations.transformers import NeuronHealthCallback
from harness.integrations.transformers import StopOnDeadUnits as TransformersStop

pytestmark = pytest.mark.filterwarnings("ignore")


class Net(pl.LightningModule):
    """All of its units die at the 20th batch."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))

    def training_step(self, batch: Tensor, index: int) -> Tensor:
        if index == 20:
            self.net[0].bias.data.fill_(-50)  # pyright: ignore
        return self.net(batch).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


@pytest.mark.parametrize("stop_class", [LightningStop, harness.StopOnDeadUnits])
def test_lightning(stop_class: Any, tmp_path: Path) -> None:
    stop = stop_class(0.5, census_every=10, output=tmp_path, config={"lr": 0.01}, name="a", say=False)
    quiet: dict[str, Any] = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    trainer = pl.Trainer(max_epochs=1, accelerator="cpu", callbacks=[stop], **quiet)
    trainer.fit(Net(), DataLoader(torch.randn(800, 8), batch_size=8))  # pyright: ignore[reportArgumentType]
    assert trainer.global_step == 30
    (run,) = harness.open_runs(tmp_path)
    assert (run.state, run.status["steps"], run.row()["lr"]) == ("finished", 30, 0.01)
    assert run.steps["loss"].notna().all()
    assert run.row()["final.dead"] == 16


@pytest.mark.parametrize("stop_class", [TransformersStop, harness.StopOnDeadUnits])
def test_transformers(stop_class: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    small = dict.fromkeys(("hidden_size", "word_embed_proj_dim", "ffn_dim"), 16)
    model = OPTForCausalLM(
        OPTConfig(
            vocab_size=32, max_position_embeddings=16, num_hidden_layers=1, num_attention_heads=2, **small
        )
    )
    for layer in model.modules():
        if isinstance(layer, nn.Linear) and layer.bias is not None:
            nn.init.constant_(layer.bias, -50.0)
    data = [{"input_ids": row, "labels": row} for row in torch.randint(2, 32, (80, 8))]
    stop = stop_class(0.5, census_every=5, output=tmp_path, say=False)
    arguments = TrainingArguments(
        str(tmp_path / "checkpoints"), max_steps=20, report_to=[], use_cpu=True, disable_tqdm=True
    )
    trainer = Trainer(model, arguments, train_dataset=data, callbacks=[stop])  # pyright: ignore[reportArgumentType]
    trainer.train()
    assert trainer.state.global_step == 5
    (run,) = harness.open_runs(tmp_path)
    assert (run.state, run.status["steps"]) == ("finished", 5)


def test_one_name_is_a_callback_of_whatever_library_is_there() -> None:
    both = harness.StopOnDeadUnits(0.5, say=False)
    assert isinstance(both, NeuronHealth)
    assert isinstance(both, NeuronHealthCallback)
    assert isinstance(copy.deepcopy(both), harness.StopOnDeadUnits)
    assert isinstance(LightningStop(), harness.StopOnDeadUnits)
    assert isinstance(TransformersStop(), harness.StopOnDeadUnits)
    assert not isinstance(TransformersStop(), NeuronHealth)
    with pytest.raises(ValueError, match="alert"):
        harness.StopOnDeadUnits(1.5)


@pytest.mark.parametrize(
    ("imported", "face"),
    [
        ("lightning.pytorch", "harness.integrations.lightning"),
        ("transformers", "harness.integrations.transformers"),
    ],
)
def test_only_the_library_in_use_is_imported(imported: str, face: str) -> None:
    other = {"transformers": "lightning"}.get(imported, "transformers")
    program = (
        f"import sys, {imported}\n"
        f"before = {other!r} in sys.modules\n"
        "import harness\n"
        "stop = harness.StopOnDeadUnits(0.5)\n"
        f"assert before or type(stop).__module__ == {face!r}, type(stop)\n"
        f"assert before or {other!r} not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True)


def test_without_either_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.integrations.stop.FACES", {"nowhere": ("no_such_library",)})
    with pytest.raises(ImportError, match="neither is installed"):
        harness.StopOnDeadUnits(0.5)
