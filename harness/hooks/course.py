"""What tells calls apart without a graph: the course of their forward, and the layer that ran last.

Which calls a forward makes is known from how it was called.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from harness.activations.lookup import lookup
from harness.hooks.hook import Call

MANY = 10_000  # largest number of courses that are remembered


class LastOfThread(threading.local):
    """A layer of each thread."""

    layer: nn.Module | None = None


class Course:
    """The course that the running forward takes, which decides the order of its calls without a graph.

    Attributes:
        taken: the module that was called, and how; forwards that take the same course make the same calls.
        ordered: whether some calls without a graph are told apart by their order.
        relied: whether the order has decided where a call was counted.
        without: whether a call without a graph has been seen.
        broken: whether these came in another order than before.
        last: in each thread, the `layer` that ran last, of those whose outputs a graph does not tell apart.
    """

    __slots__ = ("_traced", "broken", "last", "ordered", "relied", "taken", "without")

    def __init__(self) -> None:
        self.taken: Any = None
        self.last = LastOfThread()
        self.without = False
        self.ordered = self.relied = self.broken = False
        self._traced: set[Any] = set()

    @property
    def is_traced(self) -> bool:
        """Whether a forward that took the same course has been traced."""
        return self.taken in self._traced

    def trace(self) -> None:
        """Record that the running forward is traced."""
        if len(self._traced) > MANY:
            self._traced.clear()
        self._traced.add(self.taken)


def course_of(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
    """The module that is called, its mode, and what of the arguments may decide which calls it makes."""
    if len(args) == 1 and not kwargs and isinstance(args[0], Tensor):
        return module, module.training, args[0].shape, args[0].dtype
    return module, module.training, *_shapes(args), *_shapes(kwargs.items())


def _shapes(values: Iterable[Any]) -> Iterator[Any]:
    """Shapes, types and plain values."""
    for value in values:
        if isinstance(value, Tensor):
            yield value.shape, value.dtype
        elif isinstance(value, bool | int | str | None):
            yield value
        elif isinstance(value, tuple | list):
            yield tuple(_shapes(value))
        else:
            yield type(value)


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
