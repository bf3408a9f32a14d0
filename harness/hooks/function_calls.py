"""FunctionCalls: activations that are called as functions, in traced forwards and by interceptors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from inspect import signature
from typing import Any

from torch import Tensor, nn

from harness.activations import lookup as functional
from harness.activations.fused import fused_activation
from harness.activations.gates import Gate
from harness.graph.hand_thresholds import BY_HAND
from harness.graph.operations import function_name
from harness.graph.tensor_map import TensorMap
from harness.hooks._torch import is_recompute, version_of
from harness.hooks.compiled.traceable import TracedFunctions
from harness.hooks.counting import CallCounter
from harness.hooks.discovery import Trace
from harness.hooks.forward_state import ForwardState, ForwardStates
from harness.hooks.function_taps import Interceptor
from harness.hooks.known_calls import KnownCalls
from harness.hooks.sites import Caller, SiteBook

THRESHOLDS = ("clamp", "maximum")  # count as activations only on a layer's output
INPLACE = {"inplace"}


class FunctionCalls:
    """Finds activations among the functions that a model calls, and counts them.

    Args:
        states: states of its forwards.
        counter: counts the calls.
        book: the sites.
        names: module → its name.
        gate_eps: a gate is open where |f'(z)| exceeds it.
        compiled: counts the calls in compiled code.
        added_to: returns the modules that have come, if a module has other children than before.
    """

    def __init__(
        self,
        states: ForwardStates,
        counter: CallCounter,
        book: SiteBook,
        names: Mapping[nn.Module, str],
        gate_eps: float,
        compiled: TracedFunctions,
        added_to: Callable[[nn.Module], list[nn.Module]],
    ) -> None:
        self._compiled, self._added_to = compiled, added_to
        self._states, self._counter, self._book, self._names = states, counter, book, names
        self._eps = gate_eps
        self._zeros = ZeroConstants()
        self._known: dict[Any, KnownCalls] = {}  # by owner, name, and whether it works in place
        self._bare: dict[Any, KnownCalls] = {}  # by owner, function and the same, for calls without arguments

    def interceptor(self) -> Interceptor | None:
        """The interceptor for this thread's forward; None if its function calls are not intercepted."""
        state = self._states.own
        if not state.following and (not is_recompute() or self._counter.paused):
            return None
        if state.interceptor is None:
            state.interceptor = Interceptor(self._intercepted, self._compiled)
        return state.interceptor

    def _intercepted(self, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Count an activation that an owner calls as a function."""
        state = self._states.own
        if state.busy or not (state.following or is_recompute()):
            return
        try:
            self._called(state, function, args, kwargs)
        except Exception as error:
            self._counter.failed("a call of an activation", error)

    def _called(self, state: ForwardState, function: Any, args: Sequence[Any], kwargs: Any) -> None:
        assert state.interceptor is not None
        owner = state.interceptor.owner
        bare = len(args) == 1 and (not kwargs or kwargs.keys() == INPLACE)
        if bare and state.fast and not is_recompute():  # nothing to bind
            known = self._bare.get((owner, function, bool(kwargs) and kwargs["inplace"]))
            if known is not None and (known.only or known).count(args[0], state.forward):
                return
        found = functional.bound(function, args, kwargs, _has_graph, self._is_planned_zero)
        if found is not None:
            name, z, arguments = found
            writes = works_in_place(function, args, kwargs)
            self._function(owner, name, z, arguments, writes=writes)
            if bare:
                given = bool(kwargs) and kwargs["inplace"]
                self._bare[owner, function, given] = self._known[owner, name, writes]

    def _function(
        self, owner: nn.Module, name: str, z: Tensor, arguments: Mapping[str, Any], *, writes: bool
    ) -> None:
        key = owner, name
        known = self._known.get((owner, name, writes))
        recompute = is_recompute()
        if known is None:
            known = self._known[owner, name, writes] = KnownCalls(self._counter.course, lambda: writes)
        elif self._states.own.fast and not recompute and known.count(z, self._states.own.forward):
            return
        if not functional.is_activation(name, arguments, self._eps):
            return
        full = f"{self._names.get(owner, '?')}:{name}"
        gate_of = partial(_gate_of_call, name, arguments)
        compute = partial(functional.compute, name, arguments)
        asked = functional.asked(arguments)
        caller = Caller(key, full, name, gate_of, compute, "function", asked.open_of, asked.lasts)
        self._counter.count(caller, z, known, recompute)

    def traced(self, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Call a torch function on behalf of a trace, which records it."""
        state = self._states.own
        trace = state.tracing
        if state.busy or trace is None or trace.inside:
            return function(*args, **kwargs)
        trace.called()
        activated: Any = None
        z: Tensor | None = None
        owner = trace.stack[-1]
        try:
            if added := self._added_to(owner):
                trace.note_added(owner, added)
            found = functional.bound(function, args, kwargs, self._is_data, self._is_zero)
            if found is not None and not functional.is_activation(found[0], found[2], self._eps):
                found = None
            if found is not None and found[0] in THRESHOLDS:
                origin = trace.provenance.get(found[1])
                if origin is None or not origin.direct:
                    self._book.uncounted.add((owner, found[0]))
                    found = None  # coordinates, losses, probabilities: they have no units that could be dead
            if found is not None and owner in trace.unclear:
                activated = None, trace.provenance.before(found[1]), found[1].shape
            elif found is not None:
                trace.owners.add(owner)
                activated = (owner, found[0]), trace.provenance.before(found[1]), found[1].shape
                z = found[1]
                writes = works_in_place(function, args, kwargs)
                self._function(owner, found[0], z, found[2], writes=writes)
                if found[0] == "maximum" and not z.requires_grad:
                    self._counter.ambiguous = True  # only a trace tells which operand is data
            elif (fused := fused_activation(function, args)) is not None:
                self._counter.hide(_uncounted(owner, self._names, fused[0], fused[0]), fused[1])
        except Exception as error:
            self._counter.failed("a call of an activation", error)
        out = function(*args, **kwargs)
        try:
            key = None if activated is None else activated[0]
            trace.seen.call(owner, function, args, kwargs, z, key, out)
            if trace.streams is not None:
                if z is None:
                    trace.streams.follow(function_name(function), args, kwargs, out)
                else:
                    trace.streams.activated(z, out)
            if activated is not None:
                key, origin, shape = activated
                trace.provenance.activated(origin, shape, out)
                if z is not None:
                    trace.by_hand.note(out, z)
                if isinstance(out, Tensor) and key is not None:
                    trace.provenance.recurrence.come_from(key, out)
            else:
                self._look_by_hand(trace, owner, function_name(function), args, out)
                trace.provenance.follow(function, args, kwargs, out)
        except Exception as error:
            self._counter.failed(f"torch's {getattr(function, '__name__', function)}", error)
        return out

    def _look_by_hand(self, trace: Trace, owner: nn.Module, name: str, args: Sequence[Any], out: Any) -> None:
        """Say that a layer's output passes a threshold that is not called as a function."""
        z = trace.by_hand.of(name, args, out)
        origin = None if z is None else trace.provenance.get(z)
        if origin is not None and origin.direct:
            caller = _uncounted(owner, self._names, name.strip("_"), "threshold")
            self._counter.hide(caller, BY_HAND)

    def _is_data(self, tensor: Tensor) -> bool:
        trace = self._states.own.tracing
        return trace is not None and trace.provenance.get(tensor) is not None

    def _is_planned_zero(self, tensor: Tensor) -> bool:
        """Whether a tensor is zero; on a device it is assumed to be, since a trace has checked it."""
        return not tensor.is_cpu or self._zeros.is_zero(tensor)

    def _is_zero(self, tensor: Tensor) -> bool:
        trace = self._states.own.tracing
        if trace is not None and trace.provenance.made_of_zeros(tensor):
            return True
        return self._zeros.is_zero(tensor)


def _uncounted(owner: nn.Module, names: Mapping[nn.Module, str], function: str, activation: str) -> Caller:
    """Caller of an activation that cannot be counted, named by the function."""
    name = f"{names.get(owner, '?')}:{function}"
    return Caller((owner, function), name, activation, lambda _: Gate(), lambda _: None, "function")


def _has_graph(tensor: Tensor) -> bool:
    return tensor.requires_grad


def _gate_of_call(name: str, arguments: Mapping[str, Any], eps: float) -> Gate:
    gate = functional.gate(name, arguments, eps)
    assert gate is not None
    return gate


def works_in_place(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a call of a torch function writes into its first argument.

    Example:
        >>> import torch
        >>> from torch.nn import functional as F
        >>> works_in_place(F.elu, [torch.ones(1), 1.0, True], {}), works_in_place(torch.relu_, [], {})
        (True, True)
    """
    name = getattr(function, "__name__", "")
    if name.endswith("_") and not name.endswith("__"):
        return True
    place = _place_of_inplace(function)
    return bool(args[place] if 0 <= place < len(args) else kwargs.get("inplace", False))


@cache
def _place_of_inplace(function: Any) -> int:
    """The position of the parameter `inplace` of a function, -1 if it has none."""
    try:
        names = list(signature(function).parameters)
    except (TypeError, ValueError):  # one of torch's own, written in C++
        return -1
    return names.index("inplace") if "inplace" in names else -1


class ZeroConstants:
    """Remembers which tensors that a model compares with are zero, until they are written to.

    A device is not read at every step.

    Example:
        >>> import torch
        >>> zeros = ZeroConstants()
        >>> zeros.is_zero(torch.zeros(3)), zeros.is_zero(torch.ones(3))
        (True, False)
    """

    def __init__(self) -> None:
        self._known = TensorMap[tuple[int, bool]]()  # version → whether it is zero

    def is_zero(self, tensor: Tensor) -> bool:
        """Whether all values are 0; reads each tensor once, and again after it was written to."""
        version = version_of(tensor)
        found = self._known.get(tensor)
        if found is not None and found[0] == version:
            return found[1]
        zero = not bool(tensor.any())
        self._known.put(tensor, (version, zero))
        return zero
