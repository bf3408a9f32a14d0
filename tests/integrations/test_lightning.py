"""NeuronHealth against the real Lightning: the numbers of a plain Recorder around a hand-written loop."""

from __future__ import annotations

import copy
import csv
import doctest
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from pandas.testing import assert_frame_equal
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader

import harness
from harness.integrations.lightning import NeuronHealth

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{message}")
    for message in (
        r".*isinstance\(treespec, LeafSpec\).*:FutureWarning",
        r".*does not have many workers.*",
        r".*have no .val_dataloader.*",
        r".*ended before the epoch ended and your dataloader is not resumable.*",
        r".*Checkpoint directory .* exists and is not empty.*",
        r".*weights_only.*",
    )
]

BATCH, BATCHES = 8, 12


def data() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(6, generator=generator) for _ in range(BATCH * BATCHES)]


def loader(batch: int = BATCH) -> DataLoader[Any]:
    return DataLoader(data(), batch_size=batch)  # type: ignore[arg-type]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 1))
    assert isinstance(net[0].bias, Tensor)
    with torch.no_grad():
        net[0].bias[:4] = -50  # born dead
    return net


class Net(LightningModule):
    """Calls its network without its own forward, as many people do."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return loss(self.net(batch))

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("val_loss", loss(self.net(batch)))

    def test_step(self, batch: Tensor, batch_idx: int) -> None:
        self.net(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


class Forward(Net):
    """Calls itself."""

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return loss(self(batch))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class Functional(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.one, _, self.two, _, self.three = network()

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.one(x))
        return self.three(self.two(x).clamp(min=0))

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return loss(self(batch))

    configure_optimizers = Net.configure_optimizers


def loss(out: Tensor) -> Tensor:
    return (out - 1).square().mean()


def trainer(*callbacks: Any, **options: Any) -> Trainer:
    quiet: dict[str, Any] = {
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
    }
    chosen: dict[str, Any] = {"logger": False, "accelerator": "cpu", "devices": 1, "max_epochs": 2}
    return Trainer(callbacks=list(callbacks), **(chosen | quiet | options))


def by_hand(
    model: nn.Module, *, every: int = 5, accumulate: int = 1, batch: int = BATCH, **options: Any
) -> pd.DataFrame:
    """The same training in an ordinary loop."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    with harness.Recorder(model, optimizer=optimizer, census_every=every, **options) as recorder:
        for _ in range(2):
            for index, x in enumerate(loader(batch)):
                if index % accumulate == 0:
                    optimizer.zero_grad()
                (loss(model(x)) / accumulate).backward()
                if (index + 1) % accumulate == 0:
                    optimizer.step()
                    recorder.step()
    return recorder.history()


def named(history: pd.DataFrame, prefix: str = "net.") -> pd.DataFrame:
    return history.assign(site=prefix + history["site"])


def untouched(model: nn.Module, host: Trainer) -> None:
    for module in model.modules():
        assert not module._forward_hooks, module
        assert not module._forward_pre_hooks, module
    assert "training_step" not in vars(host.strategy)
    for optimizer in host.optimizers:
        assert not optimizer._optimizer_step_pre_hooks
        assert not optimizer._optimizer_step_post_hooks


@pytest.mark.parametrize("kind", [Net, Forward])
def test_numbers_are_those_of_a_recorder(kind: type[Net]) -> None:
    health = NeuronHealth(census_every=5)
    model = kind()
    host = trainer(health)
    host.fit(model, loader())
    expected = named(by_hand(network()))
    assert expected["step"].unique().tolist() == [5, 10, 15, 20, 24]
    assert_frame_equal(health.history(), expected)
    assert (expected["grad_norm"] > 0).any()
    untouched(model, host)


def test_functional_activations_in_forward() -> None:
    health = NeuronHealth(census_every=5)
    host = trainer(health)
    host.fit(Functional(), loader())
    assert_frame_equal(health.history(), by_hand(Functional()))
    assert health.recorder is not None
    assert [site.name for site in health.recorder.sites] == [":relu", ":clamp"]


def test_module_is_watched_alone() -> None:
    health = NeuronHealth(census_every=5, module="net")
    model = Net()
    host = trainer(health)
    host.fit(model, loader())
    assert_frame_equal(health.history(), by_hand(network()))
    untouched(model, host)


def test_two_callbacks_on_two_modules(tmp_path: Path) -> None:
    one, two = NeuronHealth(census_every=3, module="first"), NeuronHealth(census_every=4, module="second")
    host = trainer(one, two)
    host.fit(Manual(), loader())
    host.save_checkpoint(tmp_path / "both.ckpt")
    assert one.history()["step"].unique().tolist() == [3, 6, 9, 12]
    assert two.history()["step"].unique().tolist() == [4, 8, 12]
    kept = torch.load(tmp_path / "both.ckpt", weights_only=True)["callbacks"]
    assert [kept[health.state_key]["steps"] for health in (one, two)] == [12, 12]


def test_a_name_that_is_no_submodule() -> None:
    with pytest.raises(ValueError, match="module: expected a submodule such as net, but got 'nte'"):
        trainer(NeuronHealth(module="nte")).fit(Net(), loader())


def test_a_module_that_is_never_called_gives_no_verdict() -> None:
    class Sidestep(Net):
        def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
            return loss(nn.Sequential.forward(self.net, batch))

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


def test_training_is_bit_identical(tmp_path: Path) -> None:
    models = []
    probe = torch.stack(data()[:32])
    for callbacks in ([], [NeuronHealth(census_every=3, probe=probe, module="net")], [NeuronHealth(2)]):
        model = Net()
        torch.manual_seed(5)
        shuffled = DataLoader(data(), batch_size=BATCH, shuffle=True)  # type: ignore[arg-type]
        trainer(*callbacks, accumulate_grad_batches=2).fit(model, shuffled, loader())
        models.append(model.state_dict())
    for other in models[1:]:
        for name, value in models[0].items():
            assert torch.equal(value, other[name]), name


def test_accumulated_batches_are_one_window() -> None:
    health = NeuronHealth(census_every=2)
    trainer(health, accumulate_grad_batches=3).fit(Net(), loader())
    expected = named(by_hand(network(), every=2, accumulate=3))
    assert expected["n"].unique().tolist() == [2 * 3 * BATCH]
    exact = ["evidence", "step", "site", "unit", "n", "active", "silent_for", "state"]
    assert_frame_equal(health.history()[exact], expected[exact])
    assert_frame_equal(health.history(), expected, rtol=1e-4)


def test_validation_and_test_are_not_counted() -> None:
    health = NeuronHealth(census_every=5)
    host = trainer(health, num_sanity_val_steps=2, val_check_interval=4)
    model = Net()
    host.fit(model, loader(), loader())
    expected = named(by_hand(network()))
    assert_frame_equal(health.history(), expected)
    host.test(model, loader(), verbose=False)
    assert_frame_equal(health.history(), expected)


@pytest.mark.parametrize("module", [None, "net"])
def test_a_probe(module: str | None) -> None:
    probe = torch.stack(data()[:32])
    health = NeuronHealth(census_every=10, probe=probe, module=module)
    trainer(health).fit(Forward(), loader())
    expected = by_hand(network(), every=10, probe=probe)
    assert expected.query("evidence == 'probe'")["step"].unique().tolist() == [0, 10, 20, 24]
    assert_frame_equal(health.history(), expected if module else named(expected))
    assert health.verdict is not None
    assert "born dead (dead before the first step)" in health.verdict.text


def test_a_probe_needs_a_forward() -> None:
    with pytest.raises(ValueError, match="probe: Net has no forward"):
        trainer(NeuronHealth(probe=torch.randn(4, 6))).fit(Net(), loader())


class Manual(LightningModule):
    """Two networks, two optimizers, steps by hand: on every second batch."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.first, self.second = network(), network()

    def training_step(self, batch: Tensor, batch_idx: int) -> None:
        optimizers = self.optimizers()
        assert isinstance(optimizers, list)
        for net in (self.first, self.second):
            self.manual_backward(loss(net(batch)))
        if batch_idx % 2:
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:  # type: ignore[override]
        return [torch.optim.SGD(net.parameters(), lr=0.05) for net in (self.first, self.second)]


def test_manual_optimization_with_two_optimizers() -> None:
    health = NeuronHealth(census_every=3)
    trainer(health).fit(Manual(), loader())
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    with harness.Recorder(net, optimizer=optimizer, census_every=3) as recorder:
        for _ in range(2):
            for index, batch in enumerate(loader()):
                loss(net(batch)).backward()
                if index % 2:
                    optimizer.step()
                    optimizer.zero_grad()
                    recorder.step()
    found = health.history()
    for name in ("first.", "second."):
        own = found[found["site"].str.startswith(name)].reset_index(drop=True)
        assert_frame_equal(own, named(recorder.history(), name))


def test_activation_checkpointing_in_manual_optimization() -> None:
    class Recomputes(Net):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch: Tensor, batch_idx: int) -> None:  # type: ignore[override]
            optimizer = self.optimizers()
            optimizer.zero_grad()  # type: ignore[union-attr]
            self.manual_backward(loss(checkpoint(self.net, batch, use_reentrant=False)))  # type: ignore[arg-type]
            optimizer.step()  # type: ignore[union-attr, call-arg]

    health = NeuronHealth(census_every=5)
    trainer(health).fit(Recomputes(), loader())
    assert_frame_equal(health.history(), named(by_hand(network())))


def test_activation_checkpointing() -> None:
    class Recomputes(Net):
        def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
            return loss(checkpoint(self.net, batch, use_reentrant=False))  # type: ignore[arg-type]

    health = NeuronHealth(census_every=5)
    trainer(health).fit(Recomputes(), loader())
    assert_frame_equal(health.history(), named(by_hand(network())))


def test_mixed_precision() -> None:
    health = NeuronHealth(census_every=4, probe=torch.stack(data()[:16]))
    trainer(health, precision="bf16-mixed").fit(Forward(), loader())
    history = health.history()
    assert history["grad_norm"].notna().any()
    net = history.query("site == 'net.1' and unit < 4")
    assert set(net["state"]) == {"dead"}


def test_clipped_gradients_are_those_the_optimizer_used() -> None:
    health = NeuronHealth(census_every=5)
    trainer(health, gradient_clip_val=1e-3).fit(Net(), loader())
    assert 0 < health.history()["grad_norm"].max() <= 1e-3 + 1e-9


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


def test_a_copy_of_the_model_during_a_fit_is_free() -> None:
    class Copies(Net):
        def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
            self.copied = copy.deepcopy(self.net)
            self.copied(torch.randn(4, 6))

    health = NeuronHealth(census_every=5)
    trainer(health).fit(Copies(), loader())
    assert_frame_equal(health.history()[["site", "n"]], named(by_hand(network()))[["site", "n"]])


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


def test_the_other_name_of_the_library() -> None:
    import pytorch_lightning as pl

    class Other(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
            return loss(self.net(batch))

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)

    health = NeuronHealth(census_every=5)
    host = pl.Trainer(
        callbacks=[health],  # type: ignore[list-item]
        logger=False,
        accelerator="cpu",
        max_epochs=2,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    host.fit(Other(), loader())
    assert_frame_equal(health.history(), named(by_hand(network())))


def test_without_the_library_the_message_names_the_extra() -> None:
    code = (
        "import sys; sys.modules.update({'lightning': None, 'lightning.pytorch': None,"
        " 'pytorch_lightning': None})\nimport harness.integrations.lightning"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'dying-relu-harness[lightning]'" in done.stderr


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
