"""ModuleTap: the hook on an activation module."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

from torch import Tensor, nn
from torch.compiler import is_dynamo_compiling, is_exporting
from torch.utils.hooks import RemovableHandle

from harness.activations.declared import pre_activation
from harness.hooks._torch import (
    graph_task,
    in_compiled_call,
    is_recompute,
    never_compiled,
    never_traced,
)
from harness.hooks.compiled.traceable import TracedCalls
from harness.hooks.counting import CallCounter
from harness.hooks.forward_state import ForwardStates
from harness.hooks.hook import NO_KEYWORDS, Hook
from harness.hooks.known_calls import KnownCalls
from harness.hooks.sites import Caller

PassBy = Callable[[Caller, nn.Module, Any, KnownCalls], None]


class ModuleTap(Hook):
    """A forward pre-hook that counts known calls by the fast path and all others by the slow one.

    Args:
        caller: the module.
        states: states of the forwards.
        counter: counts its calls.
        called: collects the modules that were called.
        pass_by: receives calls outside of counted forwards.
        traced: counts its calls in compiled code.
        writes: whether the module works in place now.

    Attributes:
        handle: removes the hook.
        in_place: whether compiled code counts on a copy of z, since the module works in place.
        has_after: whether the module has an `AfterCall`.
    """

    __slots__ = (
        "_called",
        "_counter",
        "_eager",
        "_pass_by",
        "_states",
        "caller",
        "handle",
        "has_after",
        "in_place",
        "known",
        "traced",
    )

    def __init__(
        self,
        caller: Caller,
        states: ForwardStates,
        counter: CallCounter,
        called: set[nn.Module],
        pass_by: PassBy,
        traced: TracedCalls,
        writes: Callable[[], bool],
    ) -> None:
        self.caller, self.known, self.traced = caller, KnownCalls(counter.course, writes), traced
        self.in_place = self.has_after = False
        self.handle: RemovableHandle | None = None
        self._states, self._counter, self._called, self._pass_by = states, counter, called, pass_by
        self._eager = never_traced(self._trace)

    def hang(self, module: nn.Module) -> None:
        """Hook the module; again, if it has been given pre-hooks since, which may replace the argument."""
        if self.handle is not None:
            if next(reversed(module._forward_pre_hooks), None) == self.handle.id:
                return
            self.handle.remove()
        self.handle = module.register_forward_pre_hook(self, with_kwargs=True)

    @never_compiled
    def __call__(self, module: nn.Module, args: Any, kwargs: Mapping[str, Any] = NO_KEYWORDS) -> Any:
        if is_dynamo_compiling():
            return None if is_exporting() else self._trace(args, kwargs)
        try:
            if in_compiled_call():  # between two graphs
                return self._eager(args, kwargs)
            state, known = self._states.own, self.known
            if state.fast and len(args) == 1 and not kwargs and graph_task() == -1:  # not a recomputation
                call = known.only or known
                if call.count(args[0], state.forward):
                    return None
            recompute = is_recompute()
            z = args[0] if args else next(iter(kwargs.values()), None)
            if not isinstance(z, Tensor) or not z.is_floating_point():
                floats = pre_activation(args, kwargs)
                z = z if floats is None else floats
            if not state.active and not recompute:
                self._pass_by(self.caller, module, z, known)
            elif isinstance(z, Tensor) and ((len(args) == 1 and not kwargs) or _takes(module, args, kwargs)):
                self._called.add(module)
                self._counter.count(self.caller, z, known, recompute)
        except Exception as error:  # must not reach the training
            self._counter.failed(self.caller.name, error)
        return None

    def _trace(self, args: Any, kwargs: Mapping[str, Any]) -> Any:
        """The arguments, with a tapped pre-activation that compiled code counts."""
        if len(args) != 1 or len(kwargs) > 0:
            self.traced.missed = True
            return None
        call = self.traced.next(args[0])
        if call is None:
            return None
        return (self.traced.tap(call, args[0], later=self.has_after, in_place=self.in_place),), kwargs


class AfterCall(Hook):
    """Forward hook on an activation module, for compiled code alone: counts there, and writes back.

    The compiler fuses the counting better if it comes after the activation (`TracedCalls.tap`).

    Args:
        tap: the tap of the module.
        compiled: whether the module is known to be compiled. If not, the hook removes itself once it is
            called eagerly.
    """

    __slots__ = ("_compiled", "_tap", "handle")

    def __init__(self, tap: ModuleTap, *, compiled: bool) -> None:
        self._tap, self._compiled = tap, compiled
        self.handle: RemovableHandle | None = None

    @never_compiled
    def __call__(self, module: nn.Module, args: Any, output: Any) -> Any:
        traced = self._tap.traced
        if traced.waiting is not None:
            return traced.finish(output)
        idle = traced.turn == 0 and not self._compiled and not self._tap.in_place
        if idle and not is_dynamo_compiling() and not in_compiled_call() and self.handle is not None:
            self._tap.has_after = False
            self.handle.remove()
        return None


def _takes(module: nn.Module, args: Any, kwargs: Any) -> bool:
    """Whether a module accepts these arguments; if not, its call raises and must not be counted."""
    try:
        signature(module.forward).bind(*args, **kwargs)
    except TypeError:
        return False
    return True
