"""watch: observe a training with one line before the loop, and no calls inside it."""

from __future__ import annotations

import atexit
import os
import warnings
import weakref
from collections.abc import Callable, Sequence
from inspect import signature
from types import TracebackType
from typing import Any, Self

import torch
from torch import nn
from torch.optim import Optimizer

from harness.config.errors import did_you_mean
from harness.hooks.arguments import check_numbers
from harness.hooks.captured import REPLAYS, is_capturing
from harness.tracking.recorder import Recorder
from harness.tracking.step_hook import StepHook
from harness.tracking.updates import Updates

NO_UPDATE = (
    "no optimizer was seen to step a parameter of this model: all forwards are one window, labelled step 0. "
    "Call recorder.step() without arguments after each update."
)
NOT_GIVEN = (
    "{name} stepped parameters of the model, and it was not given to harness.watch: its steps count, but "
    "grad_norm and the evidence are only of the optimizers that were given"
)
WATCHED_TWICE = (
    "harness.watch: another recorder watches this model already, and goes on. If it is of an earlier run of "
    "this cell, end it with close()."
)

WATCHING = StepHook()


def watch(
    model: nn.Module, optimizer: Optimizer | Sequence[Optimizer] | None = None, **options: Any
) -> WatchingRecorder:
    """Watch a training from now on, without a block or a call in the loop.

    Each step of any optimizer that holds parameters of the model counts as a step, also if it replaces an
    earlier one. Optimizers that step after the same forward pass make one step together. The recording ends
    with `close()`, with the block of `with harness.watch(...)`, or with the interpreter. Forward passes after
    the last census then make one more.

    If parameters are updated without an optimizer of torch, call `recorder.step()` after each update.

    Args:
        model: any module.
        optimizer: one optimizer or several, for `grad_norm` and evidence, which are of these alone.
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
    known = signature(Recorder).parameters
    for name in options:
        if name not in known:
            hint = did_you_mean(name, known) or f"It has {', '.join(list(known)[1:])}."
            raise TypeError(f"watch() has no argument {name!r}. {hint}")
    return WatchingRecorder(model, optimizer=optimizer, **options)


class WatchingRecorder(Recorder):
    """A Recorder that attaches itself when created, and counts the steps of optimizers by itself."""

    _no_step = NO_UPDATE

    def __init__(self, model: nn.Module, **options: Any) -> None:
        super().__init__(model, **options)
        self._updates = Updates(self._model, self._optimizers)
        self._counting = False  # whether the steps of optimizers are counted
        self._before: Callable[[], None] | None = None
        self._seen = False  # whether an optimizer has stepped since the last capture or `step`
        self._untold = False  # whether the listeners have not received the last step yet
        self._stranger = ""  # class of the optimizer that made the last step, if it was not given
        if self._writer is not None:
            self._writer.late = True
        self.attach()
        reference = weakref.ref(self)
        process = os.getpid()  # a forked child has the run of its parent, and must not end it
        self._at_exit = lambda: process == os.getpid() and (one := reference()) is not None and one.close()
        atexit.register(self._at_exit)

    def attach(self) -> None:
        """Register the hooks, including that of all optimizers.

        Raises:
            RuntimeError: already attached.
        """
        super().attach()
        others = (one for one in WATCHING.watchers if isinstance(one, WatchingRecorder))
        if any(other._model is self._model for other in others):
            warnings.warn(WATCHED_TWICE, stacklevel=4)
        # Through this, the model keeps the recorder alive, which torch's list of global hooks must not do.
        self._before, self._taps.on_forward = self._taps.on_forward, self._next_forward
        WATCHING.add(self)
        self._counting = True

    def detach(self) -> None:
        """Remove all hooks and conclude the run on disk; recorded data stays available."""
        WATCHING.remove(self)
        if self._counting:
            self._counting = False
            self._tell(None)
            self._taps.on_forward = self._before
        super().detach()

    def __enter__(self) -> Self:
        """Return the recorder, which is usually attached already."""
        if not self._attached:
            self.attach()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the window if it contains anything, detach, and conclude the run on disk."""
        self._say_stranger()
        super().__exit__(kind, error, trace)

    def close(self) -> None:
        """Close the window, remove all hooks, and conclude the run on disk; further calls do nothing."""
        atexit.unregister(self._at_exit)
        if self._attached:
            self.__exit__(None, None, None)

    def step(self, loss: torch.Tensor | float | None = None, **metrics: torch.Tensor | float) -> None:
        """Add loss and metrics to the latest step of an optimizer, which has been counted already.

        Without arguments, it counts a step if no optimizer was seen to make it: call it so after each update
        by hand. Replays of a captured CUDA graph do not trigger hooks: call it after each replay, with or
        without arguments.

        Args:
            loss: loss of this step.
            metrics: further numbers of this step.

        Raises:
            TypeError: `loss` or a metric is not a number.
            ValueError: metrics without a run on disk, a loss with neither a run on disk nor evidence, or one
                with several values where a diagnosis needs one.
        """
        given = loss is not None or bool(metrics)
        if self._attached and not self._seen and (self._taps.captured or not given):
            self._tell(None)
            self._updates.by_hand(self._taps.forwards)
            super().step(loss, **metrics)
            return
        self._seen = False
        if given and self.path is None and (metrics or not self._listeners):
            raise ValueError("step(): loss and metrics are kept in a run on disk; give watch(…, output=…)")
        check_numbers(loss, metrics)
        self._check_loss(loss)
        self._tell(loss)
        if self._open and self._writer is not None:
            self._run.run(self._writer.note, loss, metrics)

    def stepped(self, optimizer: Optimizer) -> None:
        """Count a step of an optimizer, unless it belongs to the latest step or to another model."""
        if is_capturing():
            self._taps.counter.say(REPLAYS)
            self._seen = False
            return
        if not self._updates.trains(optimizer):
            return
        self._seen = True
        given = self._updates.is_given(optimizer)
        if not self._updates.begins(optimizer, forwards=self._taps.forwards):
            self._stranger = "" if given else self._stranger
            return
        self._say_stranger()
        self._stranger = "" if given else type(optimizer).__name__
        self._tell(None)
        if self._open and self._writer is not None:
            self._run.run(self._writer.step, self.steps + 1, _rate_of(optimizer), None, {})
        self._untold = bool(self._listeners)
        self._count()

    def _say_stranger(self) -> None:
        """Queue a warning if the last step was made by an optimizer that was not given, unlike others."""
        if self._stranger and self._optimizers:
            self._taps.counter.say(NOT_GIVEN.format(name=self._stranger))

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

    def _has_rest(self) -> bool:
        """Whether the last window contains anything: no call in the loop tells what a sanity check is."""
        return self._windows.nonempty

    def failed(self, error: Exception) -> None:
        """Warn that a step could not be observed."""
        self._taps.counter.failed("an optimizer's step", error)


def _rate_of(optimizer: Optimizer) -> float:
    """Learning rate of an optimizer's first group; NaN if it has none."""
    return float(optimizer.param_groups[0].get("lr", float("nan")))
