"""Machinery between a user's code and the kernels: checkpoints, autocast, compile, lazy layers."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from harness.selftest.case import Case, kill, normal, sequential
from harness.selftest.plain import MLP_REFERENCE, MLP_SITES, mlp
from harness.selftest.truth import Keep, site, through


class Checkpointed(nn.Module):
    """The middle is computed twice, but its inputs count once."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.stem, self.relu, self.head = nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2)
        self.middle = nn.Sequential(nn.Linear(6, 7), nn.ReLU(inplace=True), nn.Linear(7, 6))
        self.reentrant = reentrant
        kill(self.stem, 0)
        kill(self.middle[0], 1)

    def forward(self, x: Tensor, keep: Keep = through) -> Tensor:
        x = self.relu(keep("relu", self.stem(x)))
        if keep is through:
            x = checkpoint(self.middle, x, use_reentrant=self.reentrant)  # pyright: ignore[reportAssignmentType]
        else:
            x = self.middle[2](self.middle[1](keep("middle.1", self.middle[0](x))))
        return self.head(x)


class CheckpointedFunction(nn.Module):
    """A function of the root is checkpointed, with its activations called as functions."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.stem, self.fc, self.head = nn.Linear(6, 6), nn.Linear(6, 7), nn.Linear(7, 2)
        self.reentrant = reentrant
        kill(self.stem, 0)
        kill(self.fc, 1)

    def forward(self, x: Tensor, keep: Keep = through) -> Tensor:
        def part(x: Tensor) -> Tensor:
            return F.relu(keep(":relu#1", self.fc(x)))

        x = F.relu(keep(":relu", self.stem(x)))
        if keep is through:
            return self.head(checkpoint(part, x, use_reentrant=self.reentrant))
        return self.head(part(x))


CHECKPOINT_SITES = (site("relu", "stem", 6, 0), site("middle.1", "middle.0", 7, 1))
FUNCTION_SITES = (site(":relu", "stem", 6, 0), site(":relu#1", "fc", 7, 1))


def autocast(dtype: torch.dtype, device: str) -> AbstractContextManager[Any]:
    return torch.autocast(torch.device(device).type, dtype)


def called_as_a_function(model: nn.Module) -> Any:
    return lambda x: functional_call(model, dict(model.named_parameters()), (x,))


def lazy() -> Any:
    return nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(5), nn.ReLU(), nn.LazyLinear(2))


def lazy_images() -> Any:
    return nn.Sequential(nn.LazyConv2d(5, 3), nn.LazyBatchNorm2d(), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2))


CASES: dict[str, Case] = {
    "checkpoint": Case(lambda: Checkpointed(False), CHECKPOINT_SITES, normal(8, 6)),
    "checkpoint reentrant": Case(lambda: Checkpointed(True), CHECKPOINT_SITES, normal(8, 6)),
    "checkpoint accumulation": Case(
        lambda: Checkpointed(False), CHECKPOINT_SITES, normal(4, 6, batches=6), accumulate=3
    ),
    "checkpointed function": Case(lambda: CheckpointedFunction(False), FUNCTION_SITES, normal(8, 6)),
    "autocast bfloat16": Case(
        mlp, MLP_SITES, reference=MLP_REFERENCE, context=partial(autocast, torch.bfloat16)
    ),
    "autocast float16": Case(
        mlp, MLP_SITES, reference=MLP_REFERENCE, context=partial(autocast, torch.float16)
    ),
    "compiled": Case(mlp, MLP_SITES, reference=MLP_REFERENCE, wrap=partial(torch.compile, backend="eager")),
    "functional_call": Case(mlp, MLP_SITES, reference=MLP_REFERENCE, wrap=called_as_a_function),
    "lazy linear": Case(lazy, (site("1", "0", 8), site("3", "2", 5)), reference=sequential({1: "1", 3: "3"})),
    "lazy conv": Case(lazy_images, (site("2", "1", 5, axis=1),), normal(4, 2, 6, 6), sequential({2: "2"})),
}
