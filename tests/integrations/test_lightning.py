"""NeuronHealth against the real Lightning: the numbers of a plain Recorder around a hand-written loop."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fits import (
    BATCH,
    QUIET,
    Forward,
    Functional,
    Manual,
    Net,
    by_hand,
    data,
    loader,
    loss,
    named,
    network,
    trainer,
    untouched,
)
from pandas.testing import assert_frame_equal
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader

import harness
from harness.integrations.lightning import NeuronHealth

pytestmark = QUIET


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


def test_a_copy_of_the_model_during_a_fit_is_free() -> None:
    class Copies(Net):
        def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
            self.copied = copy.deepcopy(self.net)
            self.copied(torch.randn(4, 6))

    health = NeuronHealth(census_every=5)
    trainer(health).fit(Copies(), loader())
    assert_frame_equal(health.history()[["site", "n"]], named(by_hand(network()))[["site", "n"]])


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


def test_the_loss_scale_is_the_precision_plugins() -> None:
    """Under mixed precision the gradients are those of the loss, up to what half precision rounds."""
    from lightning.pytorch.plugins.precision import MixedPrecision

    scaled, plain = NeuronHealth(census_every=24), NeuronHealth(census_every=24)
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0, growth_factor=2.0, growth_interval=5)
    trainer(scaled, plugins=[MixedPrecision("16-mixed", "cpu", scaler)]).fit(Net(), loader())
    trainer(plain).fit(Net(), loader())
    assert scaler.get_scale() > 256
    got, want = scaled.history(), plain.history()
    assert got.grad_rms.tolist() == pytest.approx(want.grad_rms.tolist(), rel=0.05, abs=1e-3)
    assert (want.grad_rms > 0.01).any()
