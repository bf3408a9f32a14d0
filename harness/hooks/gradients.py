"""grad_norm: the gradient of each unit's incoming parameters, as the optimizer uses it.

Read in the optimizer's step-pre hook, after unscaling, so that neither the order of `zero_grad` nor a
gradient scaler matters; only the norms are kept, never a gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from harness.hooks import kernels
from harness.hooks.hook import Hook

TRANSPOSED = nn.modules.conv._ConvTransposeNd


def unit_parameters(producer: nn.Module | None, size: int) -> list[nn.Parameter]:
    """The parameters of a layer that belong to single units: weight and bias, γ and β."""
    if producer is None or isinstance(producer, nn.Embedding | nn.EmbeddingBag):
        return []
    own = [getattr(producer, name, None) for name in ("weight", "bias")]
    groups = producer.groups if isinstance(producer, TRANSPOSED) else 1
    rows = [(p, 1 if isinstance(producer, TRANSPOSED) and name == 0 else 0) for name, p in enumerate(own)]
    return [
        p for p, axis in rows if isinstance(p, nn.Parameter) and p.shape[axis : axis + 1] == (size // groups,)
    ]


def by_unit(gradient: Tensor, producer: nn.Module) -> Tensor:
    """A parameter's gradient with the units on axis 0 (a transposed convolution has them on axis 1)."""
    if not isinstance(producer, TRANSPOSED) or gradient.ndim == 1:
        return gradient
    inputs, outputs = gradient.shape[:2]
    grouped = gradient.reshape(producer.groups, inputs // producer.groups, outputs, -1)
    return grouped.transpose(1, 2).reshape(producer.groups * outputs, -1)


class IncomingGradients:
    """Per-unit norms of the incoming gradients at the last optimizer step of a window.

    Args:
        optimizers: whose steps are watched; without any, `.grad` is read when asked.
    """

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        self._optimizers = optimizers
        self._producers: dict[int, tuple[nn.Module, list[nn.Parameter]]] = {}
        self._squares: dict[int, Tensor] = {}
        self._owned: dict[int, tuple[int, set[int]]] = {}  # optimizer → number and ids of its parameters
        self._handles: list[RemovableHandle] = []

    def attach(self) -> None:
        """Hook the optimizers."""
        for optimizer in self._optimizers:
            self._handles.append(optimizer.register_step_pre_hook(Hook(self.stepping)))

    def detach(self) -> None:
        """Leave no hook behind."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def add(self, index: int, producer: nn.Module | None, size: int) -> None:
        """Watch the parameters of a site's producer."""
        parameters = unit_parameters(producer, size)
        if producer is not None and parameters:
            self._producers[index] = producer, parameters

    def stepping(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """An optimizer is about to step: its gradients are final."""
        groups = optimizer.param_groups
        known, owned = self._owned.get(id(optimizer), (-1, set()))
        total = sum(len(group["params"]) for group in groups)
        if known != total:  # parameters may be added
            owned = {id(p) for group in groups for p in group["params"]}
            self._owned[id(optimizer)] = total, owned
        for index, (producer, parameters) in self._producers.items():
            if id(parameters[0]) in owned:
                self._take(index, producer, parameters)

    def close(self, index: int, size: int) -> np.ndarray:
        """Norms (F,) for the census that closes now; NaN where none is known."""
        if not self._optimizers and index in self._producers:
            self._take(index, *self._producers[index])
        squares = self._squares.get(index)
        if squares is None:
            return np.full(size, np.nan)
        whole = getattr(squares, "full_tensor", None)  # of sharded parameters
        return np.sqrt((squares if whole is None else whole()).cpu().numpy())

    def clear(self) -> None:
        """A new window begins."""
        self._squares = {}

    def _take(self, index: int, producer: nn.Module, parameters: Sequence[nn.Parameter]) -> None:
        weight, *bias = [by_unit(p.grad, producer) for p in parameters if p.grad is not None] or [None]
        if weight is not None:
            self._squares[index] = kernels.unit_squares(weight, bias[0] if bias else None)
