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
    """

    def __init__(self, course: Course, failed: Callable[[Exception], None]) -> None:
        self._course, self._failed = course, failed
        self._handles: dict[nn.Module, RemovableHandle] = {}

    def attach(self, modules: Iterable[nn.Module], *, frozen: bool) -> None:
        """Hook the layers among these modules that are not hooked yet.

        Args:
            modules: any modules.
            frozen: whether frozen ones are enough; without a graph, all are needed.
        """
        for module in modules:
            own = [p for p in module._parameters.values() if p is not None]
            if not own or module in self._handles or isinstance(module, torch.jit.ScriptModule):
                continue
            if lookup(module) is None and not (frozen and any(p.requires_grad for p in own)):
                self._handles[module] = module.register_forward_hook(Call(self._ran, self._failed))

    def detach(self) -> None:
        """Remove the hooks."""
        for handle in self._handles.values():
            handle.remove()
        self._handles.clear()

    def _ran(self, module: nn.Module, args: Any, output: Any) -> None:
        self._course.last.layer = module
