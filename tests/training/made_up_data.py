"""Data sets that are made up, and their batches."""

from __future__ import annotations

import torch

from harness.config import compose
from harness.training.data import Dataset
from harness.training.sources import RawData

CPU = torch.device("cpu")


def made_up(shape=(3, 5, 4), train=60, test=20, classes=5, dtype=torch.uint8, seed=0) -> RawData:
    draws = torch.Generator().manual_seed(seed)

    def inputs(n: int) -> torch.Tensor:
        if dtype == torch.uint8:
            return torch.randint(0, 256, (n, *shape), generator=draws, dtype=torch.uint8)
        return torch.randn(n, *shape, generator=draws) * 3 + 1

    labels = (torch.arange(n) % classes for n in (train, test))
    divisor = 255.0 if dtype == torch.uint8 else 1.0
    return RawData(inputs(train), next(labels), inputs(test), next(labels), classes, divisor)


def dataset(raw: RawData, *overrides: str, dtype=torch.float32, seed=0, batch_size=16) -> Dataset:
    options = compose(["data=mnist", *(f"data.{o}" for o in overrides)]).data
    return Dataset(raw, options, seed, batch_size, device=CPU, dtype=dtype)


def epoch_of(data: Dataset, epoch: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    batches = [data.batch(epoch, step) for step in range(data.steps_per_epoch)]
    return torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])
