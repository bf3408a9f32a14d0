"""Networks that are compiled, and how they are trained while they are watched."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import harness

if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 13):
    pytest.skip("models run eagerly while they are watched, before torch 2.13", allow_module_level=True)

STEPS = 14


COUNTED = ["step", "unit", "n", "active", "silent_for", "non_finite"]


MEASURED = ["mean", "std", "max", "rate", "grad_rms", "grad_norm"]


class MLP(nn.Module):
    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.one, self.act, self.two, self.head = (
            nn.Linear(6, 5),
            nn.ReLU(inplace),
            nn.Linear(5, 4),
            nn.Linear(4, 2),
        )
        with torch.no_grad():
            self.one.bias[2] = self.two.bias[1] = -100.0  # dead

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.two(self.act(self.one(x)))))


class Broken(MLP):
    """Python stands between the two halves."""

    def forward(self, x: Tensor) -> Tensor:
        z = self.two(self.act(self.one(x)))
        torch._dynamo.graph_break()
        return self.head(F.relu(z))


class Shared(nn.Module):
    """One module in place for four layers of equal width."""

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.act = nn.ModuleList(nn.Linear(6, 6) for _ in range(4)), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = self.act(layer(x))
        return x


class Written(nn.Module):
    """What is written in place is read again."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.act = nn.Linear(6, 6), nn.Linear(6, 6), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        z = self.a(x)
        self.act(z)  # its result is not used
        y = self.b(z)
        y.relu_()
        w = self.a(y) + z
        return F.relu(w, True) + w


class Spelled(nn.Module):
    """Functions and methods, with arguments by place and by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(6))

    def forward(self, x: Tensor) -> Tensor:
        a, b, c, d, e, f = self.layers
        x = torch.relu(a(x))
        x = b(x).clamp(min=0)
        x = F.leaky_relu(input=c(x), negative_slope=0.1)
        x = F.gelu(d(x), approximate="tanh")
        x = torch.sigmoid(e(x)).clamp(max=0.9)
        return f(x).relu().sum(-1)


class Cell(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.x, self.h = nn.Linear(6, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), 8)
        for _ in range(4):
            h = torch.relu(self.x(x) + self.h(h))
        return h


class Residual(nn.Module):
    """Convolutions, batch norm, a block that calls one ReLU twice."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
            self.n, self.m, self.relu = nn.BatchNorm2d(4), nn.BatchNorm2d(4), nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            y = self.m(self.b(self.relu(self.n(self.a(x)))))
            y += x
            return self.relu(y)

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.blocks = nn.Conv2d(1, 4, 3), nn.Sequential(self.Block())
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x.view(-1, 1, 2, 3).repeat(1, 1, 3, 2)
        return self.head(self.blocks(F.relu(self.stem(x))).mean((2, 3)))


def transformer() -> nn.Module:
    layer = nn.TransformerEncoderLayer(6, 2, 12, dropout=0.0, batch_first=True)
    return nn.Sequential(nn.Unflatten(1, (1, 6)), nn.TransformerEncoder(layer, 2, enable_nested_tensor=False))


def sequential() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "module and function": MLP,
    "in place": partial(MLP, True),
    "sequential": sequential,
    "shared": Shared,
    "written": Written,
    "spelled": Spelled,
    "cell": Cell,
    "residual": Residual,
    "transformer": transformer,
}


def train(
    make: Callable[[], nn.Module],
    compile: Callable[[nn.Module], Callable[[Tensor], Tensor]],
    sizes: tuple[int, ...] = (16,),
    between: Callable[[nn.Module, Any, int], None] | None = None,
    autocast: bool = False,
    **options: Any,
) -> tuple[pd.DataFrame, nn.Module, harness.Recorder]:
    """History, model and recorder of a training; `compile` makes what is called of the model."""
    torch.manual_seed(0)
    model = make()
    call = compile(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(1)
    with harness.Recorder(model, optimizer=optimizer, census_every=7, **options) as recorder:
        for step in range(STEPS):
            if between is not None:
                between(model, call, step)
            x = torch.randn(sizes[step % len(sizes)], 6, generator=generator)
            with torch.autocast("cpu", dtype=torch.bfloat16) if autocast else nullcontext():
                loss = call(x).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            recorder.step()
    return recorder.history(), model, recorder


def assert_alike(got: pd.DataFrame, want: pd.DataFrame, unknown: tuple[str, ...] = ()) -> None:
    """Counts are equal, the rest within what two compilations of a float32 model differ by.

    `unknown`: sites whose gradients are not known in compiled code.
    """
    assert got["site"].tolist() == want["site"].tolist()
    pd.testing.assert_frame_equal(got[COUNTED], want[COUNTED])
    assert got["state"].tolist() == want["state"].tolist()
    for column in MEASURED:
        rows = ~want["site"].isin(unknown) if column == "grad_rms" else slice(None)
        np.testing.assert_allclose(
            got[column][rows], want[column][rows], rtol=1e-4, atol=1e-6, err_msg=column
        )


def eager(model: nn.Module) -> nn.Module:
    return model
