"""Discovery: a forward pass in which every torch function is seen, which shows how each z is made."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from harness.activations.lookup import lookup
from harness.graph.hand_thresholds import HandThresholds
from harness.graph.origin import DATA
from harness.graph.provenance import TensorProvenance
from harness.hooks._torch import version_of
from harness.hooks.compiled.expected_calls import SeenForward
from harness.hooks.function_modes import FunctionMode
from harness.hooks.hook import NO_KEYWORDS, Call
from harness.hooks.streams import InputStreams

DEPTH, MOST = 6, 1000  # how deep, and among how many values, tensors are sought in a forward's arguments
FEW = 3  # a child with at most as many torch functions costs less than switching a mode off and on


class Trace:
    """Observations of one traced forward.

    Args:
        entry: the module whose forward is traced: the model, or a submodule that is called on its own.
        handle: (function, args, kwargs) → result, called for every torch function.
        provenance: follows the tensors.

    Attributes:
        stack: modules whose forward is running, innermost last.
        owners: modules that called an activation as a function in their own forward.
        inside: activation modules that are running; functions called inside them belong to them.
        seen: the calls of activations.
        streams: follows the inputs of the tensors' rows, if there is a mask.
        by_hand: finds activations that are written out.
        unclear: modules that have been given children in this forward: functions that seem to be their own
            may be called by a child.
    """

    def __init__(
        self,
        entry: nn.Module,
        handle: Callable[..., Any],
        provenance: TensorProvenance,
    ) -> None:
        self.entry, self.provenance = entry, provenance
        self.stack: list[nn.Module] = [entry]
        self.owners: set[nn.Module] = set()
        self.inside: list[tuple[nn.Module, Any, Any, int]] = []
        self.seen = SeenForward()
        self.streams: InputStreams | None = None
        self.by_hand = HandThresholds()
        self.unclear: set[nn.Module] = set()
        self._functions: list[int] = [0]
        self._children: dict[nn.Module, dict[nn.Module, int]] = {}
        self._mode = FunctionMode(handle)

    def start(self, values: Sequence[Any]) -> None:
        """Start the trace; the entry is called with these values."""
        for tensor in tensors_inside(values):
            if self.provenance.weights.of(tensor) is None:
                self.provenance.put(tensor, DATA)
        self._mode.start()

    def stop(self) -> None:
        """Stop the trace when the forward ends."""
        self._mode.stop()

    def called(self) -> None:
        """Count the call of a torch function in the innermost module."""
        self._functions[-1] += 1

    def note_added(self, owner: nn.Module, added: Iterable[nn.Module]) -> None:
        """Note that the running module has been given children, and these modules have come with them."""
        self.unclear.add(owner)
        for module in added:
            self.provenance.enter(module)

    def push(self, module: nn.Module) -> None:
        """Enter a module's forward."""
        if module is self.entry:
            return
        self.stack.append(module)
        self._functions.append(0)
        self.seen.enter(module)
        self.provenance.enter(module)

    def pop(self, module: nn.Module) -> None:
        """Leave a module's forward."""
        if len(self.stack) < 2 or self.stack[-1] is not module:
            return
        self.stack.pop()
        functions = self._functions.pop()
        self._functions[-1] += functions
        children = self._children.setdefault(self.stack[-1], {})
        children[module] = max(functions, children.get(module, 0))

    def enter_activation(self, module: nn.Module, z: Tensor) -> None:
        """Enter an activation module; functions called inside it belong to it."""
        self.inside.append((module, self.provenance.before(z), z, version_of(z)))

    def leave_activation(self, module: nn.Module, output: Any) -> None:
        """Leave an activation module; there is no output if it raised."""
        if self.inside and self.inside[-1][0] is module:
            _, origin, z, version = self.inside.pop()
            if output is z or version_of(z) != version:
                self.seen.in_place.add(module)
                self.seen.write(z)
            self.provenance.activated(origin, z.shape, output)
            if self.streams is not None:
                self.streams.activated(z, output)
            if isinstance(output, Tensor):
                self.provenance.recurrence.come_from(module, output)

    def to_suspend(self, activations: Collection[nn.Module], others: Collection[nn.Module]) -> set[nn.Module]:
        """Children of owners, these and those of other forwards, during whose forward their mode is off."""
        owners = self.owners.union(others)
        return {
            child
            for owner in owners
            for child, functions in self._children.get(owner, {}).items()
            if child not in owners
            and (
                functions > FEW
                or child in activations
                or not type(child).__module__.startswith("torch.nn")
                or any(True for _ in child.children())
            )
        }


def tensors_inside(values: Any) -> Iterator[Tensor]:
    """The tensors in arguments: in mappings, sequences and the attributes of objects such as dataclasses.

    >>> [t.shape[0] for t in tensors_inside([torch.zeros(2), {"x": torch.zeros(3)}])]
    [2, 3]
    """
    level: list[Any] = [values]
    for _ in range(DEPTH):
        yield from (value for value in level if isinstance(value, Tensor))
        level = list(islice(chain.from_iterable(map(_parts, level)), MOST))


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return value.values()
    if isinstance(value, list | tuple | set):
        return value
    if isinstance(value, Tensor | nn.Module | type):
        return ()
    return getattr(value, "__dict__", {}).values()


class ModuleStack:
    """Hooks on every module that tell a trace which module runs.

    Args:
        current: returns the running trace, None if there is none.
        outside: receives a module that is called without a trace, its arguments and keyword arguments.
        failed: receives errors of the hooks.
    """

    def __init__(
        self,
        current: Callable[[], Trace | None],
        outside: Callable[[nn.Module, Any, Mapping[str, Any]], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._current, self._outside, self._failed = current, outside, failed
        self._handles: list[RemovableHandle] = []
        self._hooked: set[nn.Module] = set()

    def attach(self, modules: Iterable[nn.Module], root: nn.Module) -> None:
        """Hook the modules that are not hooked yet."""
        for module in modules:
            if module in self._hooked or isinstance(module, torch.jit.ScriptModule):
                continue
            self._hooked.add(module)
            keep = self._handles.append
            if module is not root:
                keep(module.register_forward_pre_hook(self._call(self._push), with_kwargs=True))
                keep(module.register_forward_hook(self._call(self._pop), always_call=True))
            elif lookup(module) is not None:
                keep(module.register_forward_hook(self._call(self._activated), always_call=True))

    @property
    def attached(self) -> bool:
        """Whether modules are hooked, so that a submodule called on its own is seen."""
        return bool(self._handles)

    def detach(self) -> None:
        """Remove the hooks."""
        while self._handles:
            self._handles.pop().remove()
        self._hooked.clear()

    def _call(self, run: Callable[..., None]) -> Call:
        return Call(run, self._failed)

    def _push(self, module: nn.Module, args: Any, kwargs: Mapping[str, Any] = NO_KEYWORDS) -> None:
        trace = self._current()
        if trace is not None:
            trace.push(module)
        else:
            self._outside(module, args, kwargs)

    def _pop(self, module: nn.Module, args: Any, output: Any) -> None:
        trace = self._current()
        if trace is not None:
            trace.leave_activation(module, output)
            trace.pop(module)

    def _activated(self, module: nn.Module, args: Any, output: Any) -> None:
        trace = self._current()
        if trace is not None:
            trace.leave_activation(module, output)
