"""Which layer ran last: it tells calls apart where autograd's graph does not."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from harness.activations.lookup import lookup
from harness.hooks.course import Course
from harness.hooks.hook import Call


class LastLayer:
    """Hooks on layers that leave no trace in autograd's graph.

    Args:
        course: receives the layer.
        failed: receives errors of the hooks.
        every: whether all layers are hooked, as forwards without a graph need, or frozen ones alone.
    """

    def __init__(self, course: Course, failed: Callable[[Exception], None], *, every: bool) -> None:
        self._course, self._failed, self._every = course, failed, every
        self._handles: dict[nn.Module, RemovableHandle] = {}

    def attach(self, modules: Iterable[nn.Module]) -> None:
        """Hook the layers among these modules that are not hooked yet."""
        for module in modules:
            own = [p for p in module._parameters.values() if p is not None]
            if not own or module in self._handles or isinstance(module, torch.jit.ScriptModule):
                continue
            if lookup(module) is None and (self._every or not any(p.requires_grad for p in own)):
                self._handles[module] = module.register_forward_hook(Call(self._ran, self._failed))

    def detach(self) -> None:
        """Remove the hooks."""
        for handle in self._handles.values():
            handle.remove()
        self._handles.clear()

    def _ran(self, module: nn.Module, args: Any, output: Any) -> None:
        self._course.last.layer = module
