"""Uncleared gradients: whether an optimizer steps with those of all earlier steps, as nobody clears them.

A gradient that was cleared is another tensor, or 0 before a backward pass adds to it. Only if the same tensor
is met again after a step, a hook on one parameter looks at its values, in the next step.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from harness.attribution.step_metrics import parameters
from harness.recording.listener import Guard

LOOKED = 4  # steps of each optimizer that are looked at


class UnclearedGradients:
    """Looks at the first steps of some optimizers.

    Args:
        optimizers: the optimizers.
    """

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        self._guard = Guard("uncleared gradients")  # its errors disable only this
        self._handles: list[RemovableHandle] = []
        self._followed = [_Followed(optimizer, self._guard) for optimizer in optimizers]

    @property
    def found(self) -> bool:
        """Whether an optimizer stepped with gradients that were never cleared."""
        windows = [window for one in self._followed for window in one.seen]
        return any(all(map(bool, window)) for window in windows)

    def attach(self) -> None:
        """Register the hooks, if there are steps to look at."""
        for one in self._followed:
            if one.left:
                self._handles.append(one.optimizer.register_step_pre_hook(self._guard.hook(one.before)))
                self._handles.append(one.optimizer.register_step_post_hook(self._guard.hook(one.after)))

    def detach(self) -> None:
        """Remove every hook."""
        while self._handles:
            self._handles.pop().remove()
        for one in self._followed:
            one.release()

    def step(self) -> None:
        """Complete a step."""
        if self._handles and not any(one.left for one in self._followed):
            self.detach()


class _Followed:
    """One optimizer.

    Attributes:
        left: steps that are still to be looked at.
        seen: for each step that was, whether a gradient was there before each of its passes, on the device.
    """

    def __init__(self, optimizer: Optimizer, guard: Guard) -> None:
        self.optimizer, self.left, self._guard = optimizer, LOOKED, guard
        self.seen: list[list[Tensor | bool]] = []
        self._now: list[Tensor | bool] = []
        self._last: Callable[[], Tensor | None] = lambda: None  # the gradient after the last step
        self._suspect = False
        self._handle: RemovableHandle | None = None

    def before(self, *_: Any) -> None:
        """Judge the passes since the last step."""
        if self._now:
            self.seen.append(self._now)
        self.release()
        parameter = self._smallest()
        self._suspect = parameter is not None and self._last() is parameter.grad

    def after(self, *_: Any) -> None:
        """Remember the gradient, and look at its values before the passes of a suspect add to them."""
        parameter = self._smallest()
        if not self.left or parameter is None or parameter.grad is None:
            return
        self.left -= 1
        self._last = weakref.ref(parameter.grad)
        if self._suspect:
            self._handle = parameter.register_hook(lambda _, own=parameter: self._guard.run(self._look, own))

    def release(self) -> None:
        """Remove the hook."""
        self._now = []
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def _look(self, parameter: Tensor) -> None:
        self._now.append(False if parameter.grad is None else parameter.grad.any())

    def _smallest(self) -> Tensor | None:
        known = [p for p in parameters(self.optimizer) if p.grad is not None]
        dense = [p for p in known if p.grad is not None and p.grad.layout is torch.strided]
        return min(dense, key=lambda p: p.numel(), default=None)
