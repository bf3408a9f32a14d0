"""One hook on all optimizers, however many recorders watch.

torch iterates over its hooks without a lock: if each recorder added one, a training in another thread could
fail while it steps.
"""

from __future__ import annotations

import threading
import weakref
from typing import Any, Protocol

from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.hooks import RemovableHandle

from harness.hooks.hook import EagerHook


class Watcher(Protocol):
    """What follows the steps of optimizers."""

    def stepped(self, optimizer: Optimizer) -> None:
        """Handle a step of any optimizer."""

    def failed(self, error: Exception) -> None:
        """Handle an error in `stepped`."""


class StepHook:
    """Tells its watchers of each step of an optimizer; keeps none of them alive."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._watchers: tuple[weakref.ref[Watcher], ...] = ()  # replaced, never changed
        self._handle: RemovableHandle | None = None

    @property
    def watchers(self) -> list[Watcher]:
        """Those that are added and alive."""
        return [one for reference in self._watchers if (one := reference()) is not None]

    def add(self, watcher: Watcher) -> None:
        """Tell a watcher of all steps from now on."""
        with self._lock:
            self._watchers = (*self._watchers, weakref.ref(watcher, self._gone))
            if self._handle is None:
                self._handle = register_optimizer_step_post_hook(EagerHook(self._step, _ignore))

    def remove(self, watcher: Watcher) -> None:
        """Tell it of no further step."""
        self._keep(lambda one: one() is not watcher)

    def _gone(self, reference: Any) -> None:
        self._keep(lambda one: one is not reference)

    def _keep(self, wanted: Any) -> None:
        with self._lock:
            self._watchers = tuple(one for one in self._watchers if wanted(one))
            if not self._watchers and self._handle is not None:
                self._handle.remove()
                self._handle = None

    def _step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        for watcher in self.watchers:
            try:
                watcher.stepped(optimizer)
            except Exception as error:
                watcher.failed(error)


def _ignore(error: Exception) -> None:
    """Errors reach the watchers."""
