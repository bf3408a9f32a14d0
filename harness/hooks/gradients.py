"""grad_norm: the gradient of each unit's incoming parameters, as the optimizer uses it.

Read in the optimizer's step-pre hook, so that neither the order of `zero_grad` nor a gradient scaler
matters. Reading every step would cost a pass over all gradients, so the hook only remembers them; the norms
are taken when a census asks, which it mostly does before the next forward. When that forward begins the
gradients are let go, unless they will be needed: then the norms are taken first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from harness.hooks import kernels

TRIAL_STEPS = 2  # steps at which norms are always taken, until the loop's habits are known
Held = dict[int, list[tuple[Tensor, int]]]  # site → gradients with their version


def unit_parameters(producer: nn.Module | None, size: int) -> list[nn.Parameter]:
    """The parameters of a layer with one row (axis 0) per unit: weight and bias, γ and β.

    Transposed convolutions keep their units on axis 1 and embeddings have no per-unit parameters: none.
    """
    if producer is None or isinstance(producer, nn.modules.conv._ConvTransposeNd):
        return []
    own = (getattr(producer, name, None) for name in ("weight", "bias"))
    return [p for p in own if isinstance(p, nn.Parameter) and p.ndim > 0 and p.shape[0] == size]


class IncomingGradients:
    """Per-unit norms of the incoming gradients at the last optimizer step of a window.

    Args:
        optimizers: whose steps are watched; without any, `.grad` is read when asked.
        every_step: take the norms at every step (when no census schedule is known).
    """

    def __init__(self, optimizers: Sequence[Optimizer], *, every_step: bool) -> None:
        self._optimizers = optimizers
        # with several optimizers a forward of the one comes before the census of the other
        self._eager = every_step or len(optimizers) > 1
        self._parameters: dict[int, list[nn.Parameter]] = {}
        self._held: Held = {}
        self._norms: dict[int, np.ndarray] = {}
        self._handles: list[RemovableHandle] = []
        self._steps = 0
        self._forwards = 0  # since the last optimizer step

    def attach(self) -> None:
        for optimizer in self._optimizers:
            self._handles.append(optimizer.register_step_pre_hook(_StepHook(self)))

    def detach(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._held.clear()

    def add(self, index: int, producer: nn.Module | None, size: int) -> None:
        """Watch the parameters of a site's producer."""
        self._parameters[index] = unit_parameters(producer, size)

    def stepping(self, optimizer: Optimizer) -> None:
        """An optimizer is about to step: its gradients are final."""
        owned = {id(p) for group in optimizer.param_groups for p in group["params"]}
        for index, parameters in self._parameters.items():
            grads = [p.grad for p in parameters if id(p) in owned and p.grad is not None]
            if grads:
                self._held[index] = [(g, g._version) for g in grads]
        self._eager = self._eager or self._forwards > 1  # accumulation: a census may come in between
        self._steps += 1
        self._forwards = 0
        if self._eager or self._steps <= TRIAL_STEPS:
            self._take()

    def forward_begins(self) -> None:
        """Let the held gradients go before new memory is needed."""
        self._forwards += 1
        if not self._held:
            return
        if self._steps <= TRIAL_STEPS:  # zeroed in place: what is held would not last
            self._eager = self._eager or not all(_intact(held) for held in self._held.values())
        if not self._eager and self._steps > TRIAL_STEPS:
            self._norms = {}  # a stale norm is worse than none
        self._held.clear()

    def _take(self) -> None:
        for index, held in self._held.items():
            if _intact(held):
                self._norms[index] = _norms([g for g, _ in held])

    def close(self, index: int, size: int) -> np.ndarray:
        """Norms (F,) for the census that closes now; NaN where none is known."""
        if self._held and not self._eager:
            self._take()
        if not self._optimizers:
            grads = [p.grad for p in self._parameters.get(index, []) if p.grad is not None]
            return _norms(grads) if grads else np.full(size, np.nan)
        return self._norms.get(index, np.full(size, np.nan))

    def clear(self) -> None:
        """A new window begins."""
        self._held.clear()
        self._norms = {}


def _intact(held: list[tuple[Tensor, int]]) -> bool:
    return all(g._version == version for g, version in held)


def _norms(grads: Sequence[Tensor]) -> np.ndarray:
    squares: Any = sum(torch.as_tensor(kernels.row_norms_squared(g)).cpu() for g in grads)
    return np.sqrt(squares.numpy())


class _StepHook:
    """The optimizer's hook; does nothing in copies and pickles of the optimizer."""

    def __init__(self, owner: IncomingGradients | None) -> None:
        self.owner = owner

    def __call__(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if self.owner is not None:
            self.owner.stepping(optimizer)

    def __deepcopy__(self, memo: Any) -> _StepHook:
        return _StepHook(None)

    def __reduce__(self) -> tuple[type, tuple[None]]:
        return _StepHook, (None,)
