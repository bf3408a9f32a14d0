"""watch: observe a training with one line before the loop, and no calls inside it."""

from __future__ import annotations

import atexit
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.hooks import RemovableHandle

from harness.hooks.arguments import check_numbers
from harness.hooks.captured import REPLAYS, is_capturing
from harness.hooks.hook import EagerHook
from harness.tracking.recorder import Recorder


def watch(
    model: nn.Module, optimizer: Optimizer | Sequence[Optimizer] | None = None, **options: Any
) -> WatchingRecorder:
    """Watch a training from now on, without a block or a call in the loop.

    Each step of the optimizer (the first one, if several are given) counts as a step. Without `optimizer`,
    the first optimizer that steps a parameter of the model counts, and the censuses have no `grad_norm`. The
    recording ends with `close()`, with the block of `with harness.watch(...)`, or with the interpreter.

    Args:
        model: any module.
        optimizer: one optimizer or several.
        options: further arguments of `harness.Recorder`.

    Returns:
        The recorder, attached.

    Raises:
        TypeError, ValueError: as `harness.Recorder`.

    Example:
        >>> import torch, harness
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> recorder = harness.watch(model, optimizer, census_every=10)
        >>> for _ in range(20):
        ...     model(torch.randn(32, 4)).square().mean().backward()
        ...     optimizer.step()
        ...     optimizer.zero_grad()
        >>> recorder.close()
        >>> recorder.steps, recorder.history().step.unique().tolist()
        (20, [10, 20])
    """
    return WatchingRecorder(model, optimizer=optimizer, **options)


class WatchingRecorder(Recorder):
    """A Recorder that attaches itself when created, and counts the steps of an optimizer by itself."""

    def __init__(self, model: nn.Module, **options: Any) -> None:
        super().__init__(model, **options)
        self._counted: weakref.ref[Optimizer] | None = None
        self._own: set[int] = {id(parameter) for parameter in model.parameters()}
        self._handle: RemovableHandle | None = None
        self._before: Callable[[], None] | None = None
        self._seen = False  # whether the optimizer has stepped since the last capture or `step`
        self._untold = False  # whether the listeners have not received the last step yet
        if self._writer is not None:
            self._writer.late = True
        self.attach()
        reference = weakref.ref(self)
        self._at_exit = lambda: (recorder := reference()) is not None and recorder.close()
        atexit.register(self._at_exit)

    def attach(self) -> None:
        """Register the hooks, including the optimizer's.

        Raises:
            RuntimeError: already attached.
        """
        super().attach()
        if self._listeners:
            self._before, self._taps.on_forward = self._taps.on_forward, self._next_forward
        count = EagerHook(self._stepped, self._failed)
        if self._optimizers:
            self._handle = self._optimizers[0].register_step_post_hook(count)
        else:
            self._handle = register_optimizer_step_post_hook(count)

    def detach(self) -> None:
        """Remove all hooks and conclude the run on disk; recorded data stays available."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None
            self._tell(None)
            if self._listeners:
                self._taps.on_forward = self._before
        super().detach()

    def __enter__(self) -> Self:
        """Return the recorder, which is usually attached already."""
        if not self._attached:
            self.attach()
        return self

    def close(self) -> None:
        """Close the window, remove all hooks, and conclude the run on disk; further calls do nothing."""
        atexit.unregister(self._at_exit)
        if self._attached:
            self.__exit__(None, None, None)

    def step(self, loss: torch.Tensor | float | None = None, **metrics: torch.Tensor | float) -> None:
        """Add loss and metrics to the optimizer's latest step, which has been counted already.

        Replays of a captured CUDA graph do not trigger hooks: call this after each replay to count it.

        Args:
            loss: loss of this step.
            metrics: further numbers of this step.

        Raises:
            TypeError: `loss` or a metric is not a number.
            ValueError: metrics without a run on disk, or a loss with neither a run on disk nor evidence.
        """
        if self._taps.captured and not self._seen:
            super().step(loss, **metrics)
            return
        self._seen = False
        if self.path is None and (metrics or not self._listeners):
            raise ValueError("step(): loss and metrics are kept in a run on disk; give watch(…, output=…)")
        check_numbers(loss, metrics)
        self._tell(loss)
        if self._open and self._writer is not None:
            self._run.run(self._writer.note, loss, metrics)

    def _stepped(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """Count a step of an optimizer."""
        if is_capturing():
            self._taps.counter.say(REPLAYS)
            self._seen = False
            return
        self._seen = True
        if not self._optimizers:
            if self._counted is None and self._trains(optimizer):
                self._counted = weakref.ref(optimizer)
            if self._counted is None or self._counted() is not optimizer:
                return
        self._tell(None)
        if self._open and self._writer is not None:
            self._run.run(self._writer.step, self.steps + 1, self._rate(), None, {})
        self._untold = bool(self._listeners)
        self._count()

    def _next_forward(self) -> None:
        """When the next forward pass begins, report the last step without a loss."""
        self._tell(None)
        if self._before is not None:
            self._before()

    def _tell(self, loss: Any) -> None:
        """Pass the last step to the listeners, if they have not received it yet."""
        if self._untold:
            self._untold = False
            self._listeners.step(loss)

    def _trains(self, optimizer: Optimizer) -> bool:
        """Whether an optimizer updates a parameter of the model; lazy models are looked up again."""
        mine = self._own or {id(parameter) for parameter in self._model.parameters()}
        return any(id(parameter) in mine for group in optimizer.param_groups for parameter in group["params"])

    def _failed(self, error: Exception) -> None:
        self._taps.counter.failed("an optimizer's step", error)
