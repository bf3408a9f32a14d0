"""Networks and data of somebody's own, as modules in a folder."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.training import own_data

NETS = '''
import torch
from torch import nn


class Wide(nn.Module):
    """Functional ReLUs, batch norm, dropout."""

    def __init__(self, classes: int, input_shape: tuple, width: int = 8, dropout: float = 0.2):
        super().__init__()
        features = torch.Size(input_shape).numel()
        self.first, self.norm = nn.Linear(features, width), nn.BatchNorm1d(width)
        self.second, self.drop = nn.Linear(width, width), nn.Dropout(dropout)
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        x = torch.relu(self.norm(self.first(x.flatten(1))))
        return self.head(self.drop(torch.relu(self.second(x))))


def plain(width: int = 8, classes: int = 10):
    hidden = nn.Flatten(), nn.LazyLinear(width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()
    return nn.Sequential(*hidden, nn.Linear(width, classes))


def with_activation(activation, width: int = 8):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), activation(width), nn.Linear(width, 10))


def with_dropout():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 10))


def in_place():
    layers = nn.Linear(64, 8), nn.ReLU(inplace=True), nn.Linear(8, 8), nn.LeakyReLU(0.1, inplace=True)
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(8, 10))


def tied():
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.Linear(64, 10))
    network[3].weight = network[1].weight
    return network


def half_frozen():
    network = plain()
    network[3].requires_grad_(False)
    return network


def half_used():
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    network.add_module("spare", nn.Identity())
    network.spare.weight = nn.Parameter(torch.ones(3))
    return network


class Counting(nn.Sequential):
    """Scales its output by how often it was called."""

    def __init__(self):
        super().__init__(*plain())
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x) / self.calls


class BatchMean(nn.Sequential):
    """Subtracts the mean of a batch in training alone."""

    def forward(self, x):
        logits = super().forward(x)
        return logits - logits.mean(0) if self.training else logits


def batch_mean():
    return BatchMean(*plain())


class Unsteady(nn.Sequential):
    """Computes something else where its weights are no parameters, as inside `torch.func.functional_call`."""

    def forward(self, x):
        return super().forward(x) * (1.0 if isinstance(self[1].weight, nn.Parameter) else 2.0)


def unsteady():
    return Unsteady(*plain())


def typed(*, width: int, norm: bool = False, scale: float | None = None): return plain(width)
def positional(width, /): return plain(width)
def raises(): raise RuntimeError("no\\nluck")
def exits(): raise SystemExit(3)
def nothing(): return None
def narrow(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 9))
def wrong_inputs(): return nn.Linear(3, 10)
def frozen(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).requires_grad_(False)
def without_bias():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8, bias=False), nn.ReLU(), nn.Linear(8, 10))


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x):
        return self.layer(x.flatten(1)), x


class Bare(nn.Module):
    """No layers that we know."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(64, 10))

    def forward(self, x):
        return torch.relu(x.flatten(1)) @ self.weight


number = 3
'''

SETS = """
import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset, TensorDataset


def arrays(size: int = 60, seed: int = 0):
    draws = np.random.default_rng(seed)
    x = draws.random((size, 64), dtype=np.float32)
    y = (x.sum(1) > 32).astype(int)
    return x[: size // 2], y[: size // 2], x[size // 2 :], y[size // 2 :]


def pairs(): a = arrays(); return (a[0], a[1]), [torch.from_numpy(a[2]), torch.from_numpy(a[3])]
def tensor_sets():
    x_train, y_train, x_test, y_test = map(torch.as_tensor, arrays())
    return TensorDataset(x_train, y_train), TensorDataset(x_test, y_test)


class Items(Dataset):
    def __init__(self, x, y): self.x, self.y = x, y
    def __len__(self): return len(self.x)
    def __getitem__(self, place): return torch.from_numpy(self.x[place]), int(self.y[place])


class Stream(IterableDataset):
    def __init__(self, items): self.items = items
    def __iter__(self): return iter(self.items)


def items(root: str): a = arrays(); return Items(*a[:2]), Stream(Items(*a[2:])[k] for k in range(len(a[2])))
def drawn(): x = torch.rand(40, 1, 8, 8); return (x, torch.arange(40) % 2), (x, torch.arange(40) % 2)
def uint8(): x = np.zeros((8, 6, 6, 3), np.uint8); y = np.arange(8) % 2; return x, y, x, y
def number(): return 3
def two_arrays(): return np.zeros((4, 2)), np.zeros(4)
def whole(): x, y = np.zeros((4, 2), int), np.zeros(4); return x, y, x, y
def uneven(): x, y = np.zeros((4, 2), np.float32), np.zeros(3); return x, y, x, y
def raises(): raise KeyError("x")


class Broken(Items):
    def __getitem__(self, place): raise OSError("the disk is gone")


def broken(): return Broken(*arrays()[:2]), Broken(*arrays()[2:])
"""


@contextmanager
def modules_in(folder: Path) -> Iterator[Path]:
    """The two modules in a folder, imported anew; nothing of them is left afterwards."""
    (folder / "own_nets.py").write_text(NETS)
    (folder / "own_sets.py").write_text(SETS)
    (folder / "own_broken.py").write_text("import torch\nimport not_there_at_all\n")
    before = list(sys.path)
    try:
        yield folder
    finally:
        sys.path[:] = before
        own_data._made.cache_clear()
        for name in ("own_nets", "own_sets", "own_broken"):
            sys.modules.pop(name, None)
