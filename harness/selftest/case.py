"""A case: one difficult model, its inputs, and what is known about its units by construction."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from harness.selftest.truth import Keep, TrueSite


def sum_of_squares(output: Tensor) -> Tensor:
    """A loss that is finite even for empty batches."""
    return (output - 0.3).square().sum() / 16


def normal(*shape: int, batches: int = 8) -> Callable[[], list[Tensor]]:
    """Batches of Gaussian inputs."""

    def make() -> list[Tensor]:
        g = torch.Generator().manual_seed(7)
        return [torch.randn(*shape, generator=g) for _ in range(batches)]

    return make


ROWS = normal(16, 6)


def varying(*sizes: int) -> Callable[[], list[Tensor]]:
    g = torch.Generator().manual_seed(3)
    return lambda: [torch.randn(size, 6, generator=g.manual_seed(size + 1)) for size in sizes]


def itself(model: Any) -> Any:
    return model


def ordinary(device: str) -> AbstractContextManager[Any]:
    return nullcontext()


@dataclass(frozen=True)
class Case:
    """One model, its inputs and what is known about it.

    Attributes:
        make: builds the model; called after torch.manual_seed.
        sites: in order of first call.
        batches: returns the inputs, on the CPU, the same at every call.
        reference: forward that exposes the pre-activations; by default the model's own.
        loss: loss of the output.
        accumulate: forwards per optimizer step.
        train: False: forwards only.
        quiet: False if the recorder must warn.
        recorder: further arguments of the Recorder.
        wrap: returns what is called instead of the model, e.g. its compiled form.
        context: type of device → context manager around every forward.
        needs: names in torch without which the case is not available.
    """

    make: Callable[[], Any]
    sites: tuple[TrueSite, ...]
    batches: Callable[[], list[Any]] = ROWS
    reference: Callable[[Any, Any, Keep], Tensor] = lambda model, x, keep: model(x, keep)
    loss: Callable[[Tensor], Tensor] = sum_of_squares
    accumulate: int = 1
    train: bool = True
    quiet: bool = True
    recorder: dict[str, Any] = field(default_factory=dict)
    wrap: Callable[[Any], Any] = itself
    context: Callable[[str], AbstractContextManager[Any]] = ordinary
    needs: tuple[str, ...] = ()


def kill(layer: Any, *units: int) -> None:
    """Make units never positive: zero incoming weights and a negative bias."""
    with torch.no_grad():
        for unit in units:
            layer.weight[unit] = 0
            layer.bias[unit] = -1


def sequential(names: dict[int, str]) -> Callable[[Any, Any, Keep], Tensor]:
    """Forward of a Sequential; names: index of an activation → site."""

    def reference(model: Any, x: Any, keep: Keep) -> Tensor:
        for i, layer in enumerate(model):
            x = layer(keep(names[i], x) if i in names else x)
        return x

    return reference
