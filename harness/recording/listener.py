"""Listeners: objects that follow a recorder through a training without disturbing it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

from harness.hooks._torch import is_jit_tracing
from harness.hooks.captured import FOLLOWED, is_capturing
from harness.hooks.hook import Call
from harness.hooks.unobservable import error_line


class Guard:
    """Keeps a listener's errors out of the training: the first error switches the listener off.

    Args:
        name: name of the listener, for the warning.

    Attributes:
        error: why the listener is off; "" while it is on.

    Example:
        >>> guard = Guard("evidence")
        >>> guard.run(print, "on")
        on
        >>> guard.error = "ValueError: of an earlier call"
        >>> guard.run(print, "never printed")
    """

    def __init__(self, name: str) -> None:
        self.name, self.error = name, ""
        self._said = False

    def run(self, function: Callable[..., Any], *args: Any) -> None:
        """Call a function, unless the listener is off, or the call would become part of a trace."""
        if self.error or is_jit_tracing():
            return
        if is_capturing():
            self.switch_off(RuntimeError(FOLLOWED))
            return
        try:
            function(*args)
        except Exception as error:
            self.switch_off(error)

    def hook(self, function: Callable[..., Any]) -> Call:
        """Create a hook for modules and optimizers that calls a function under this guard."""
        return Call(partial(self.run, function), self.switch_off)

    def switch_off(self, error: Exception) -> None:
        """Switch the listener off."""
        self.error = self.error or error_line(error)

    def say(self) -> None:
        """Warn once of an error; not inside a hook, where a warning could become an error in the training."""
        if self.error and not self._said:
            self._said = True
            warnings.warn(
                f"{self.name}: switched off after an error; training goes on. {self.error}", stacklevel=4
            )


class Listener(Protocol):
    """Follows a recorder. Its errors never reach the training (see `Guard`)."""

    def attach(self, guard: Guard) -> None:
        """Called when the recorder attaches. Create own hooks with `guard.hook`."""

    def detach(self) -> None:
        """Remove all hooks. Called, possibly repeatedly, if the recorder detaches or the listener is off."""

    def step(self, loss: Any) -> None:
        """Called after an optimizer step; `loss` is the loss from the user, or None."""

    def census(self) -> None:
        """Called when a window closes."""

    def state_dict(self) -> dict[str, Any]:
        """State as tensors and plain values, from which another listener of this kind can continue."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""


class Listeners:
    """The listeners of one recorder, by name; each has its own guard."""

    def __init__(self) -> None:
        self._guarded: dict[str, tuple[Listener, Guard]] = {}

    def __len__(self) -> int:
        return len(self._guarded)

    def add(self, name: str, listener: Listener) -> None:
        """Add a listener; its state is saved under `name`."""
        self._guarded[name] = listener, Guard(name)

    def error(self, name: str) -> str:
        """Why a listener was switched off; "" if it was not."""
        return self._guarded[name][1].error

    def attach(self) -> None:
        for listener, guard in self._guarded.values():
            guard.run(listener.attach, guard)
            guard.say()

    def detach(self) -> None:
        for listener, guard in self._guarded.values():
            _detach(listener, guard)
        for _, guard in self._guarded.values():
            guard.say()

    def step(self, loss: Any) -> None:
        self._notify("step", loss)

    def census(self) -> None:
        self._notify("census")

    def state_dict(self) -> dict[str, Any]:
        """Name → the listener's state, including its error if it is off."""
        return {
            name: listener.state_dict() | ({"error": guard.error} if guard.error else {})
            for name, (listener, guard) in self._guarded.items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore every listener's state; a listener that was off stays off."""
        for name, (listener, guard) in self._guarded.items():
            if name in state:
                listener.load_state_dict(state[name])
                guard.error = state[name].get("error", "")
                guard._said = bool(guard.error)

    def _notify(self, method: str, *args: Any) -> None:
        for listener, guard in self._guarded.values():
            if guard.error:
                _detach(listener, guard)  # not in the failed hook, while torch iterates over the hooks
            guard.run(getattr(listener, method), *args)
            guard.say()


def _detach(listener: Listener, guard: Guard) -> None:
    """Detach a listener, even if it is off."""
    try:
        listener.detach()
    except Exception as error:
        guard.switch_off(error)
