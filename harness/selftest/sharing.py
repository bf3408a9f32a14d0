"""Modules and layers used more than once, sums, and several sites in one block."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.selftest.case import Case, kill, normal
from harness.selftest.truth import Keep, TrueSite, site, through


class SharedReLU(nn.Module):
    """One ReLU after three layers: three sites."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(6, 7), nn.Linear(7, 8), nn.Linear(8, 9)
        self.relu, self.head = nn.ReLU(), nn.Linear(9, 2)
        kill(self.fc1, 1)
        kill(self.fc2, 2, 3)
        kill(self.fc3, 4)

    def forward(self, x: Tensor, keep: Keep = through) -> Tensor:
        x = self.relu(keep("relu", self.fc1(x)))
        x = self.relu(keep("relu#1", self.fc2(x)))
        x = self.relu(keep("relu#2", self.fc3(x)))
        return self.head(x)


class TwoNames(nn.Module):
    """A module under two names uses the first; two ReLUs after one layer are two sites."""

    def __init__(self) -> None:
        super().__init__()
        self.first = self.second = nn.ReLU()
        self.other = nn.ReLU(inplace=True)
        self.fc, self.head = nn.Linear(6, 6), nn.Linear(6, 2)
        kill(self.fc, 5)

    def forward(self, x: Tensor, keep: Keep = through) -> Tensor:
        x = self.second(keep("first", self.fc(x)))
        x = self.other(keep("other", self.fc(x)))
        return self.head(x)


class Listed(nn.Module):
    """Layers in a ModuleList, activations in a ModuleDict."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(3))
        self.acts = nn.ModuleDict({"relu": nn.ReLU(), "tanh": nn.Tanh()})
        self.head = nn.Linear(6, 2)
        for i, layer in enumerate(self.layers):
            kill(layer, i)

    def forward(self, x: Tensor, keep: Keep = through) -> Tensor:
        x = self.acts["relu"](keep("acts.relu", self.layers[0](x)))
        x = self.acts["tanh"](keep("acts.tanh", self.layers[1](x)))
        return self.head(self.acts["relu"](keep("acts.relu#1", self.layers[2](x))))


class Residual(nn.Module):
    """The last ReLU follows a sum: no producer, no grad_norm."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.relu = nn.Linear(6, 6), nn.Linear(6, 6), nn.ReLU()
        self.head = nn.Linear(6, 2)
        kill(self.fc1, 3)

    def forward(self, x: Tensor, keep: Keep = through) -> Tensor:
        y = self.relu(keep("relu", self.fc1(x)))
        return self.head(self.relu(keep("relu#1", x + self.fc2(y))))


class BasicBlock(nn.Module):
    """Like torchvision's: one in-place ReLU module called twice, after a norm and after a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        kill(self.bn1, 2)

    def forward(self, x: Tensor, keep: Keep = through, name: str = "relu") -> Tensor:
        out = self.relu(keep(name, self.bn1(self.conv1(x))))
        out = self.bn2(self.conv2(out))
        out += x
        return self.relu(keep(f"{name}#1", out))


class ResNet(nn.Module):
    """A stem and two basic blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn, self.relu = (
            nn.Conv2d(2, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(inplace=True),
        )
        self.layer = nn.Sequential(BasicBlock(), BasicBlock())
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor, keep: Keep = through) -> Tensor:
        x = self.relu(keep("relu", self.bn(self.stem(x))))
        if keep is through:
            x = self.layer(x)
        else:
            for i, block in enumerate(self.layer):
                x = block(x, keep, f"layer.{i}.relu")
        return self.head(x.mean((2, 3)))


def block_sites(name: str, prefix: str = "") -> tuple[TrueSite, ...]:
    return (site(name, f"{prefix}bn1", 4, 2, axis=1), site(f"{name}#1", None, 4, axis=1))


class Twice(nn.Module):
    """A block called twice: the same units, so n doubles."""

    def __init__(self, second: str = "block.1") -> None:
        super().__init__()
        self.block, self.head = nn.Sequential(nn.Linear(6, 6), nn.ReLU()), nn.Linear(6, 2)
        self.name = second
        kill(self.block[0], 4)

    def forward(self, x: Tensor, keep: Keep = through) -> Tensor:
        for name in ("block.1", self.name):
            x = self.block[1](keep(name, self.block[0](x))) if keep is not through else self.block(x)
        return self.head(x)


class Cell(nn.Module):
    """A hand-written recurrent cell: its time steps are one site."""

    def __init__(self, steps: int = 4) -> None:
        super().__init__()
        self.fc, self.head, self.steps = nn.Linear(3 + 5, 5), nn.Linear(5, 2), steps
        kill(self.fc, 0)

    def forward(self, x: Tensor, keep: Keep = through) -> Tensor:
        h = x.new_zeros(len(x), 5)
        for t in range(self.steps):
            h = F.relu(keep(":relu", self.fc(torch.cat([x[:, t], h], -1))))
        return self.head(h)


class Mixed(nn.Module):
    """Modules and functions, in the root and below it."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.second, self.act = nn.Linear(6, 6), nn.Linear(6, 6), nn.ReLU()
            kill(self.fc, 1)

        def forward(self, x: Tensor, keep: Keep = through, prefix: str = "") -> Tensor:
            x = F.relu(keep(f"{prefix}:relu", self.fc(x)))
            return self.act(keep(f"{prefix}.act", self.second(x)))

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.fc = Mixed.Block(), Mixed.Block(), nn.Linear(6, 6)
        self.act, self.head = nn.ReLU(inplace=True), nn.Linear(6, 2)
        kill(self.fc, 0)

    def forward(self, x: Tensor, keep: Keep = through) -> Tensor:
        x = self.a(x, keep, "a") if keep is not through else self.a(x)
        x = torch.relu(keep(":relu", self.fc(x)))
        x = self.b(x, keep, "b") if keep is not through else self.b(x)
        return self.head(self.act(keep("act", self.fc(x))))


CASES: dict[str, Case] = {
    "shared relu": Case(
        SharedReLU,
        (site("relu", "fc1", 7, 1), site("relu#1", "fc2", 8, 2, 3), site("relu#2", "fc3", 9, 4)),
    ),
    "two names": Case(
        TwoNames,
        (site("first", "fc", 6, 5), site("other", "fc", 6, 5)),
    ),
    "module list": Case(
        Listed,
        (
            site("acts.relu", "layers.0", 6, 0),
            site("acts.tanh", "layers.1", 6, function=torch.tanh),
            site("acts.relu#1", "layers.2", 6, 2),
        ),
    ),
    "residual": Case(Residual, (site("relu", "fc1", 6, 3), site("relu#1", size=6))),
    "basic block": Case(BasicBlock, block_sites("relu"), normal(3, 4, 5, 5)),
    "resnet": Case(
        ResNet,
        (
            site("relu", "bn", 4, axis=1),
            *block_sites("layer.0.relu", "layer.0."),
            *block_sites("layer.1.relu", "layer.1."),
        ),
        normal(4, 2, 8, 8),
    ),
    "block twice": Case(Twice, (site("block.1", "block.0", 6, 4),)),
    "block twice per call": Case(
        lambda: Twice("block.1#1"),
        (site("block.1", "block.0", 6, 4), site("block.1#1", "block.0", 6, 4)),
        recorder={"per_call": True},
    ),
    "cell": Case(Cell, (site(":relu", "fc", 5, 0),), normal(6, 4, 3)),
    "mixed": Case(
        Mixed,
        (
            site("a:relu", "a.fc", 6, 1),
            site("a.act", "a.second", 6),
            site(":relu", "fc", 6, 0),
            site("b:relu", "b.fc", 6, 1),
            site("b.act", "b.second", 6),
            site("act", "fc", 6, 0),
        ),
    ),
}
