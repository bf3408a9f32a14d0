"""Lightning: a callback."""

import sys
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from harness.integrations.lightning import NeuronHealth

output, lr = sys.argv[1], float(sys.argv[2])
pl.seed_everything(0, verbose=False)


class Net(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        return (self.net(batch[0]) - batch[1]).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=lr)


health = NeuronHealth(10, output=output, config={"lr": lr}, evidence=True, name=f"net-{lr}", say=False)
loader = DataLoader(TensorDataset(torch.randn(480, 8), torch.randn(480, 1)), batch_size=16)
quiet: Any = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
pl.Trainer(max_epochs=1, accelerator="cpu", callbacks=[health], enable_model_summary=False, **quiet).fit(
    Net(), loader
)
