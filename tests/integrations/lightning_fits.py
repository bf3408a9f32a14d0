"""Lightning's side of the tests of NeuronHealth: small modules, their fits, the same training by hand."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

import harness

QUIET = [  # what Lightning warns of and these tests are not about
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
