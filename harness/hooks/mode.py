"""The function mode: every torch function of a watched forward, and the module that calls it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from harness.activations.table import lookup
from harness.hooks.hook import Call


class _Mode(TorchFunctionMode):
    def __init__(self, called: Callable[..., Any]) -> None:
        super().__init__()
        self._called = called

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return self._called(func, args, kwargs or {})


class FunctionWatch:
    """Watches the functions called in a forward; costs some microseconds for each, so it can be off.

    Args:
        root: the model.
        modules: all of its modules.
        called: (function, args, kwargs) → result: told of every torch function instead of its being called.
        activated: (module, args, output), after the call of an activation module.
    """

    def __init__(
        self,
        root: nn.Module,
        modules: Iterable[nn.Module],
        called: Callable[..., Any],
        activated: Callable[..., None],
    ) -> None:
        self._root, self._modules = root, list(modules)
        self._called, self._activated = called, activated
        self._handles: list[RemovableHandle] = []
        self._stack: list[nn.Module] = []
        self._inside: list[nn.Module] = []  # activation modules being called
        self._mode: _Mode | None = None

    @property
    def where(self) -> nn.Module:
        """The module in whose forward we are."""
        return self._stack[-1]

    @property
    def inside_activation(self) -> bool:
        """Whether an activation module runs: the functions in it are its own."""
        return bool(self._inside)

    def enter(self) -> None:
        """Watch from here to `leave`."""
        if not self._handles:
            for module in self._modules:
                self._hook(module)
        self._stack[:] = [self._root]
        self._mode = _Mode(self._called)
        self._mode.__enter__()

    def leave(self, *, again: bool) -> None:
        """Stop watching; `again`: the next forward will be watched too, so keep the hooks."""
        self._inside.clear()
        if self._mode is not None:
            self._mode.__exit__(None, None, None)
            self._mode = None
        if not again:
            for handle in self._handles:
                handle.remove()
            self._handles.clear()

    def activating(self, module: nn.Module) -> None:
        """An activation module is about to run."""
        self._inside.append(module)

    def _hook(self, module: nn.Module) -> None:
        if isinstance(module, torch.jit.ScriptModule):
            return  # takes no hooks
        if lookup(module) is not None:
            self._handles.append(module.register_forward_hook(Call(self._after_activation)))
        if module is not self._root:
            self._handles.append(module.register_forward_pre_hook(Call(self._push)))
            self._handles.append(module.register_forward_hook(Call(self._pop), always_call=True))

    def _push(self, module: nn.Module, args: Any) -> None:
        self._stack.append(module)

    def _pop(self, module: nn.Module, args: Any, output: Any) -> None:
        if len(self._stack) > 1:
            self._stack.pop()

    def _after_activation(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._inside:
            self._inside.pop()
        self._activated(module, args, output)
