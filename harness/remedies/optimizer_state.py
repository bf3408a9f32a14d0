"""Access to an optimizer's state per parameter: running tensors of its shape, and a step count if any."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer

from harness.hooks.arguments import as_optimizers

NO_MOMENTS = ("step_size", "ax")  # Rprop's rate of each weight, and ASGD's mean weights


class OptimizerStateView(Protocol):
    """State of the optimizer of some parameters."""

    def tensors(self, parameter: Tensor) -> list[Tensor]:
        """Running tensors with the parameter's shape (momentum, Adam's moments), writable in place."""
        ...

    def restart(self, parameter: Tensor) -> None:
        """Reset the step count of this parameter, if there is one (Adam's bias correction)."""
        ...


class TorchOptimizerState:
    """The state of torch optimizers.

    Args:
        optimizers: one optimizer, several, or None.

    Raises:
        TypeError: an item is not a torch optimizer.

    Example:
        >>> weight = torch.ones(2, requires_grad=True)
        >>> adam = torch.optim.Adam([weight])
        >>> weight.sum().backward(); adam.step()
        >>> state = TorchOptimizerState(adam)
        >>> state.restart(weight)
        >>> len(state.tensors(weight)), adam.state[weight]["step"].item()
        (2, 0.0)
    """

    def __init__(self, optimizers: Optimizer | Sequence[Optimizer] | None) -> None:
        self._optimizers = as_optimizers(optimizers)

    def tensors(self, parameter: Tensor) -> list[Tensor]:
        return [
            value
            for optimizer in self._optimizers
            for name, value in optimizer.state.get(parameter, {}).items()
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.ndim
            if name not in NO_MOMENTS
        ]

    def restart(self, parameter: Tensor) -> None:
        for optimizer in self._optimizers:
            state = optimizer.state.get(parameter, {})
            count = state.get("step")
            if isinstance(count, Tensor):
                with torch.no_grad():
                    count.zero_()
            elif count is not None:
                state["step"] = 0
