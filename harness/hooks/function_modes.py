"""Function modes that are entered in one hook and left in another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.compiler import is_dynamo_compiling
from torch.overrides import TorchFunctionMode

from harness.activations.declared import FUNCTIONS
from harness.activations.lookup import TABLE
from harness.hooks._torch import in_compiled_call, never_compiled, top_function_mode
from harness.hooks.compiled.traceable import TracedFunctions

Handle = Callable[[Any, Sequence[Any], Mapping[str, Any]], Any]


class FunctionMode(TorchFunctionMode):
    """Passes every torch function to a handler, which calls it."""

    def __init__(self, handle: Handle) -> None:
        super().__init__()
        self._handle = handle
        self.entered = False

    def start(self) -> None:
        """Enter the mode, unless it is already active."""
        if not self.entered:
            self.entered = True
            self.__enter__()

    def stop(self) -> None:
        """Leave the mode, in any order among FunctionModes; below a foreign mode, stay without effect."""
        if not self.entered:
            return
        self.entered = False
        above: list[FunctionMode] = []
        top = top_function_mode(self)
        while top is not self and isinstance(top, FunctionMode):
            top.__exit__(None, None, None)
            above.append(top)
            top = top_function_mode(self)
        if top is self:
            self.__exit__(None, None, None)
        for mode in reversed(above):
            mode.__enter__()

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if not self.entered:
            return func(*args, **(kwargs or {}))
        return self._handle(func, args, kwargs or {})


class ActivationMode(FunctionMode):
    """Passes only activations to the handler, before they are called.

    Args:
        handle: the handler.
        compiled: counts the calls in compiled code.
    """

    def __init__(self, handle: Handle, compiled: TracedFunctions) -> None:
        super().__init__(handle)
        self._compiled = compiled

    @never_compiled
    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if is_dynamo_compiling() or in_compiled_call():
            compiled = self._compiled
            if func in TABLE and not compiled.counting and len(compiled.stack) == 0:  # not in any forward
                compiled.missed = True
        elif self.entered and (func in TABLE or id(func) in FUNCTIONS):
            self._handle(func, args, kwargs or {})
        return func(*args, **kwargs) if kwargs else func(*args)
