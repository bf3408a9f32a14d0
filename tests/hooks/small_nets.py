"""Small nets, loops and listings of hooks for the tests of the hooks."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor, nn

from harness.selftest.case import kill


def small() -> Any:
    """Four units: 0 dead, 1 always on, 2 and 3 neither."""
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    kill(model[0], 0, 1)
    with torch.no_grad():
        model[0].bias[1] = 1
    return model


def x(rows: int = 10, seed: int = 0, columns: int = 3) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def train_step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Tensor) -> None:
    model(batch).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.01)


def hooks_of(model: nn.Module) -> list[tuple[str, str, list[Any]]]:
    """Every hook of every module and parameter, as torch keeps them."""
    found: list[tuple[str, str, list[Any]]] = []
    for name, module in model.named_modules(remove_duplicate=False):
        for attribute, value in vars(module).items():
            if "hooks" in attribute and isinstance(value, dict):
                found.append((name, attribute, list(value.values())))
        found.append((name, "forward", [vars(module).get("forward"), type(module)]))
    for name, parameter in model.named_parameters():
        found.append((name, "_backward_hooks", list((parameter._backward_hooks or {}).values())))
    return found


def optimizer_hooks(optimizer: torch.optim.Optimizer) -> dict[str, list[Any]]:
    return {k: list(v.values()) for k, v in vars(optimizer).items() if "hooks" in k}


def global_hooks() -> list[int]:
    spaces = (sys.modules["torch.nn.modules.module"], sys.modules["torch.optim.optimizer"])
    found = [v for space in spaces for k, v in sorted(vars(space).items()) if k.startswith("_global")]
    return [len(v) for v in found if isinstance(v, dict)]


def dropout_cnn() -> Any:
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Dropout(0.3),
        nn.Conv2d(6, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 3),
    )  # fmt: skip
