"""Ordinary trainings of small networks, for benchmarks of the diagnosis and of the cures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
Loss = Callable[[Tensor, Tensor], Tensor]  # outputs, labels


@dataclass(frozen=True)
class Setting:
    """A network, an optimizer and data, on which every fault is tried."""

    network: str
    optimizer: str
    data: str
    lr: float
    batch: int = 64
    steps: int = 400
    warmup: int = 20

    @property
    def name(self) -> str:
        return f"{self.network}, {self.optimizer}, {self.data}"


@dataclass
class Training:
    """One training, which a fault changes before its first step (`before`) or while it goes on (`at`)."""

    setting: Setting
    seed: int
    model: nn.Module
    x: Tensor
    y: Tensor
    lr: float
    bias_lr: float = 1.0  # factor
    decay: float = 0.0
    warmup: int = 0
    batch: Callable[[int, Tensor], Tensor] = lambda _, x: x
    labels: Callable[[int, Tensor], Tensor] = lambda _, y: y
    lr_at: Callable[[int], float] = lambda _: 1.0
    loss_at: Callable[[int], float] = lambda _: 1.0
    write: Callable[[int], None] = lambda _: None
    loss: Loss = F.cross_entropy
    optimizer: Any = field(init=False)
    order: torch.Generator = field(init=False)
    rates: list[float] = field(init=False)

    def begin(self) -> None:
        """Make the optimizer and the order of the batches; nothing changes from here on but `at` a step."""
        self.optimizer = make_optimizer(self)
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.order = torch.Generator().manual_seed(self.seed)

    def batch_at(self, step: int) -> tuple[int, Tensor, Tensor]:
        """The step, its inputs and labels; to be called once a step."""
        index = torch.randint(0, len(self.x), (self.setting.batch,), generator=self.order)
        return step, self.batch(step, self.x[index]), self.labels(step, self.y[index])

    def loss_of(self, model: nn.Module, batch: tuple[int, Tensor, Tensor]) -> Tensor:
        """The loss of a batch, after whatever happens at its step."""
        step, inputs, labels = batch
        self.write(step)
        factor = self.lr_at(step) * min(1.0, (step + 1) / max(1, self.warmup))
        for group, lr in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = lr * factor
        return self.loss(model(inputs), labels)

    def held_out(self) -> tuple[Tensor, Tensor]:
        """Inputs that were not trained on, moved as the others were at the beginning, and their labels."""
        x, _, probe, labels = data(self.setting.data)
        return (probe - x.mean()) / x.std() * self.x.std() + self.x.mean(), labels

    @property
    def middle(self) -> int:
        return self.setting.steps // 2

    def hidden(self) -> list[nn.Linear | nn.Conv2d]:
        """Layers that feed an activation, without the norms."""
        return [m for m in self.model.modules() if isinstance(m, nn.Linear | nn.Conv2d)][:-1]

    def norms(self) -> list[Any]:
        return [m for m in self.model.modules() if isinstance(m, BATCH_NORMS)]


def make_optimizer(t: Training) -> torch.optim.Optimizer:
    """Biases in a group of their own, as many people have them."""
    weights = [p for p in t.model.parameters() if p.ndim > 1]
    biases = [p for p in t.model.parameters() if p.ndim < 2]
    groups = [{"params": weights}, {"params": biases, "lr": t.lr * t.bias_lr}]
    if t.setting.optimizer == "adam":
        return torch.optim.Adam(groups, lr=t.lr, weight_decay=t.decay)
    momentum = 0.9 if t.setting.optimizer == "momentum" else 0.0
    return torch.optim.SGD(groups, lr=t.lr, momentum=momentum, weight_decay=t.decay)


def network(name: str, x: Tensor) -> nn.Module:
    """`MLP 3x128`, `MLP 5x64`, `CNN`, with or without batch norm."""
    norm = "batch norm" in name
    if name == "pre-norm transformer":
        return Transformer(x.shape[1])
    if name.startswith("CNN"):
        layers: list[nn.Module] = [nn.Unflatten(1, (1, 8, 8))]
        for inputs, outputs in ((1, 16), (16, 32)):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1)]
            layers += [nn.BatchNorm2d(outputs)] if norm else []
            layers += [nn.ReLU(), nn.MaxPool2d(2)]
        layers += [nn.Flatten(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10)]
    else:
        depth, width = (int(n) for n in name.split(",")[0].split()[1].split("x"))
        layers, size = [], x.shape[1]
        for _ in range(depth):
            layers += [nn.Linear(size, width), *([nn.BatchNorm1d(width)] if norm else []), nn.ReLU()]
            size = width
        layers.append(nn.Linear(size, 10))
    model = nn.Sequential(*layers)
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]
    return model


class Transformer(nn.Module):
    """Two pre-norm blocks over eight tokens."""

    def __init__(self, features: int, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Linear(features // 8, width)
        self.place = nn.Parameter(torch.randn(8, width))
        self.blocks = nn.ModuleList(Block(width) for _ in range(2))
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x.unflatten(1, (8, -1))) + self.place
        for block in self.blocks:
            h = block(h)
        return self.head(h.mean(1))


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.layers = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))

    def forward(self, h: Tensor) -> Tensor:
        a = self.norms[0](h)
        h = h + self.attention(a, a, a, need_weights=False)[0]
        return h + self.layers(self.norms[1](h))


@cache
def data(name: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training inputs and labels, held-out ones: digits, standardised or in [0, 1]; Gaussian classes."""
    if name == "Gaussian classes":
        draw = np.random.default_rng(0)
        labels = draw.integers(0, 10, 3000)
        centres = draw.normal(size=(10, 40))
        inputs = centres[labels] + 1.5 * draw.normal(size=(3000, 40))
    else:
        inputs, labels = load_digits(return_X_y=True)
        inputs = inputs / 16.0
        if "standardised" in name:
            inputs = (inputs - inputs.mean()) / inputs.std()
    order = np.random.default_rng(1).permutation(len(inputs))
    x = torch.tensor(inputs[order], dtype=torch.float32)
    y = torch.tensor(np.asarray(labels)[order])
    held_out = len(x) // 4
    return x[held_out:], y[held_out:], x[:held_out], y[:held_out]
