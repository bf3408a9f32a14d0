"""Taps on activations called as functions: an interceptor that is active in their owners' own forward."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

from harness.hooks.compiled.traceable import TracedFunctions, TracedOwnForward
from harness.hooks.function_modes import ActivationMode, Handle
from harness.hooks.hook import NO_KEYWORDS, Call


class Interceptor:
    """One thread's function mode, and its stack of running owners and suspended children.

    Args:
        handle: receives every activation function that an owner calls.
        compiled: counts the calls in compiled code.
    """

    def __init__(self, handle: Handle, compiled: TracedFunctions) -> None:
        self._mode = ActivationMode(handle, compiled)
        self._stack: list[nn.Module | None] = []  # None: a child in which the mode is off

    @property
    def running(self) -> bool:
        """Whether a forward is known to run."""
        return bool(self._stack)

    @property
    def owner(self) -> nn.Module:
        """The module in whose forward the function is called."""
        owner = self._stack[-1]
        assert owner is not None
        return owner

    def push(self, owner: nn.Module | None) -> None:
        """Enter the forward of an owner, or of a child during which the mode is off (None)."""
        self._stack.append(owner)
        self._switch()

    def pop(self) -> None:
        """Leave a forward."""
        if self._stack:
            self._stack.pop()
            self._switch()

    def reset(self) -> None:
        """Clear the stack once no forward runs, even after an error."""
        if self._stack:
            self._stack.clear()
            self._switch()

    def _switch(self) -> None:
        if self._stack and self._stack[-1] is not None:
            self._mode.start()
        else:
            self._mode.stop()


class FunctionTaps:
    """The hooks that switch interceptors on and off.

    Args:
        current: returns the interceptor to use now; None while function calls are not counted.
        outside: receives an owner called in the meantime, its arguments and keyword arguments.
        failed: receives errors of the hooks.
        compiled: replaces the interceptor in compiled code.
    """

    def __init__(
        self,
        current: Callable[[], Interceptor | None],
        outside: Callable[[nn.Module, Any, Mapping[str, Any]], None],
        failed: Callable[[Exception], None],
        compiled: TracedFunctions,
    ) -> None:
        self._current, self._outside, self._failed, self._compiled = current, outside, failed, compiled
        self._handles: dict[nn.Module, tuple[RemovableHandle, RemovableHandle]] = {}
        self.owners: set[nn.Module] = set()

    def attach(self, owners: Iterable[nn.Module], suspended: Iterable[nn.Module]) -> None:
        """Hook owners, and children during which the mode is off; an owner is never suspended."""
        for module in owners:
            if module not in self.owners:
                self._remove(module)
                self.owners.add(module)
                self._hook(module, self._enter)
        for module in suspended:
            if module not in self._handles:
                self._hook(module, self._suspend)

    def renew(self, module: nn.Module) -> None:
        """Hook a module again, after hooks that it has been given since; does nothing if it has none."""
        if module in self._handles:
            self._remove(module)
            self._hook(module, self._enter if module in self.owners else self._suspend)

    def detach(self) -> None:
        """Remove the hooks."""
        for module in list(self._handles):
            self._remove(module)
        self.owners.clear()

    def _hook(self, module: nn.Module, before: Callable[..., None]) -> None:
        traced = TracedOwnForward(self._compiled, self._compiled.place_of(module))
        self._handles[module] = (
            module.register_forward_pre_hook(Call(before, self._failed, traced.begin), with_kwargs=True),
            module.register_forward_hook(Call(self._leave, self._failed, traced.end), always_call=True),
        )

    def _remove(self, module: nn.Module) -> None:
        for handle in self._handles.pop(module, ()):
            handle.remove()

    def _enter(self, module: nn.Module, args: Any, kwargs: Mapping[str, Any] = NO_KEYWORDS) -> None:
        interceptor = self._current()
        if interceptor is not None:
            interceptor.push(module)
        else:
            self._outside(module, args, kwargs)

    def _suspend(self, module: nn.Module, args: Any, kwargs: Mapping[str, Any] = NO_KEYWORDS) -> None:
        interceptor = self._current()
        if interceptor is not None:
            interceptor.push(None)

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        interceptor = self._current()
        if interceptor is not None:
            interceptor.pop()
