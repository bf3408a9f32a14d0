"""The zoo: models that nobody here wrote, built small, with random weights and without downloads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from tests.zoo.oracle import AxisRule

Batch = Any  # a tensor, a tuple whose first item is the input, or a dict of keyword arguments


@dataclass(frozen=True)
class Animal:
    """One model and all that is needed to train it a step.

    Attributes:
        build: makes the model, in training mode.
        batch: makes a batch from torch's global generator, for training.
        loss: runs the model on a batch; a scalar.
        axis: the unit axis or axes of a call, by the caller's qualified name and the pre-activation; by hand.
        exempt: patterns of `caller:kind` whose unit axis is a matter of opinion; they are not compared.
        slices: patterns of callers whose calls in one forward read different slices of one layer's units.
    """

    name: str
    build: Callable[[], nn.Module]
    batch: Callable[[], Batch]
    loss: Callable[[nn.Module, Batch], Tensor]
    axis: AxisRule
    exempt: tuple[str, ...] = ()
    slices: tuple[str, ...] = ()


def last(caller: str, z: Tensor) -> int:
    """Transformers and whatever is channels-last."""
    return -1


def channels(caller: str, z: Tensor) -> int:
    """Convolutional networks: axis 1 of images and videos, the last of vectors."""
    return 1 if z.ndim >= 4 else -1


def by_caller(default: AxisRule, patterns: dict[str, int | tuple[int, ...] | AxisRule]) -> AxisRule:
    """`default` but for callers that match a pattern."""

    def rule(caller: str, z: Tensor) -> int | tuple[int, ...]:
        for pattern, axis in patterns.items():
            if fnmatchcase(caller, pattern):
                return axis(caller, z) if callable(axis) else axis
        return default(caller, z)

    return rule


def run(model: nn.Module, batch: Batch) -> Any:
    """The model's output on a batch."""
    if isinstance(batch, dict):
        return model(**batch)
    return model(batch[0] if isinstance(batch, tuple) else batch)


def tensors(output: Any) -> Iterator[Tensor]:
    """All floating tensors in an output."""
    if isinstance(output, Tensor):
        if output.is_floating_point():
            yield output
    elif isinstance(output, dict):
        for item in output.values():
            yield from tensors(item)
    elif isinstance(output, tuple | list):
        for item in output:
            yield from tensors(item)


def any_loss(model: nn.Module, batch: Batch) -> Tensor:
    """A loss for any output: gradients reach every head, whatever it means, and stay small."""
    return torch.stack([(t.float() - 0.1).square().mean().log1p() for t in tensors(run(model, batch))]).sum()


def own_loss(model: nn.Module, batch: Batch) -> Tensor:
    """The loss that a model of Transformers returns itself."""
    return model(**batch).loss


def image(size: int, *, n: int = 2, channels: int = 3) -> Callable[[], Tensor]:
    return lambda: torch.randn(n, channels, size, size)


@cache
def zoo() -> dict[str, Animal]:
    """All models by name; those whose library is not installed are left out."""
    from tests.zoo import timm_models, torch_models, torchvision_models, transformers_models

    parts = (torch_models, torchvision_models, transformers_models, timm_models)
    found = [animal for part in parts for animal in part.animals()]
    assert len({a.name for a in found}) == len(found), "two models of one name"
    return {a.name: a for a in found}
