"""The hooks on a model's forwards: which forwards count, and how.

Some are traced (`trace_schedule.py`): every torch function is seen, which shows where pre-activations come
from. The others use what the traces found: taps on activation modules, and an interceptor where activations
are called as functions. Autograd's graph tells at every call whether the pre-activation was made in a known
way; without a graph, the order of the calls does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from harness.activations.declared import parts_of_declared
from harness.activations.lookup import lookup, open_of
from harness.graph.provenance import TensorProvenance
from harness.graph.recurrence import Recurrence
from harness.hooks._torch import is_jit_tracing, is_recompute, remove_hooks
from harness.hooks.captured import MASKED, NO_FORWARD, is_capturing
from harness.hooks.compiled.compiled_taps import CompiledTaps
from harness.hooks.compiled.compiler_stance import CompilerStance
from harness.hooks.counting import CallCounter
from harness.hooks.course import LastLayer
from harness.hooks.discovery import ModuleStack, Trace
from harness.hooks.forward_state import ForwardState, ForwardStates
from harness.hooks.function_calls import FunctionCalls
from harness.hooks.function_taps import FunctionTaps
from harness.hooks.hook import NO_KEYWORDS, Call, Inert
from harness.hooks.known_calls import KnownCalls
from harness.hooks.module_registry import ModuleRegistry
from harness.hooks.sites import Caller, Sink, SiteBook
from harness.hooks.streams import InputStreams
from harness.hooks.taps import ModuleTap
from harness.hooks.trace_schedule import WARM_UP, TraceSchedule
from harness.hooks.unobservable import MODES, UNKNOWN_MAKER, failure

MANY = 10_000  # largest number of tensors followed across calls of submodules


class ForwardHooks:
    """The hooks on one model, as long as `EagerTaps` attaches them.

    Args:
        model: the root module.
        sink: receives what is observed.
        observe: "train", "eval" or "all": observe forwards of the root in that mode.
        gate_eps: a gate is open where |f'(z)| exceeds it.
        gradients: whether ∂L/∂z is observed.
        per_call: keep repeated calls with the same producers apart.
        axis: site name → unit axis, overriding the detected one.
        root_only: count only the root's own forwards, not those of submodules called on their own.

    Attributes:
        forwards: number of counted forwards.
        unobserved_with_graph: number of forwards with a graph in a mode that is not observed.
        called: activation modules called in them.
        passed: activation modules called otherwise → the reason they were not counted.
        compiled: observers of compiled code.
        ready: whether `release` is due.
        captured: whether a CUDA graph of a forward was captured.
        book: the sites.
        counter: counts the calls.
        on_forward: called when a forward begins.
        unknown_norms: reason why there is no `grad_norm` → the first site of which this holds.
        provenance: creates the object that follows the tensors of a traced forward.
    """

    def __init__(
        self,
        model: nn.Module,
        sink: Sink,
        *,
        observe: str = "train",
        gate_eps: float = 1e-6,
        gradients: bool = True,
        per_call: bool = False,
        axis: Mapping[str, int] | None = None,
        root_only: bool = False,
    ) -> None:
        self._model, self._gradients, self._per_call = model, gradients, per_call
        self._training = None if observe == "all" else observe == "train"
        self._handles: list[RemovableHandle] = []
        self._registry = ModuleRegistry(model)
        self._names = self._registry.names
        self._states, self._schedule = ForwardStates(), TraceSchedule(model)
        self.book = SiteBook(sink, gate_eps, axis)
        shared = model, self._states, self.book, self._follow, self._schedule.warm_up
        self.counter = CallCounter(*shared, gate_eps=gate_eps, gradients=gradients, per_call=per_call)
        self.compiled = CompiledTaps(model, self._training, self.counter, gradients, per_call)
        given = self._states, self.counter, self.book, self._names, gate_eps, self.compiled.functions
        self._functions = FunctionCalls(*given, self._added_to)
        self._stack = ModuleStack(lambda: self._states.own.tracing, self._outside, self._failed)
        self._function_taps = FunctionTaps(
            self._functions.interceptor, self._outside, self._failed, self.compiled.functions
        )
        self._layers = LastLayer(self.counter.course, self._failed)
        self._root_only = root_only
        self._activations: set[nn.Module] = set()
        self._parts: dict[nn.Module, None] = {}  # submodules that were called on their own
        self._of_declared: set[nn.Module] = set()
        self._followed: TensorProvenance | None = None  # across calls of submodules
        self._seek = 0  # modules stay hooked until this forward: an unknown submodule is sought
        self._recurrence = Recurrence()
        self._threads = self._traces = 0
        self._between = False  # whether activations are called between forwards of parts without a graph
        self._attached = False
        self._look = True  # whether to see if modules have changed when a part is entered: once a step
        self.forwards = self.unobserved_with_graph = 0
        self.ready = self.captured = False
        self.called: set[nn.Module] = set()
        self.passed: dict[nn.Module, str] = {}
        self.on_forward: Callable[[], None] | None = None
        self.unknown_norms: dict[str, str] = {}
        self.provenance: Callable[[nn.Module], TensorProvenance] = TensorProvenance

    def _hook(self, module: nn.Module) -> None:
        """Attach the tap of an activation module."""
        found = lookup(module)
        if found is None or isinstance(module, torch.jit.ScriptModule) or module in self._of_declared:
            return
        activation, gate_of = found
        name = self._names[module] or f":{activation}"
        compute = partial(type(module).forward, module)
        caller = Caller(module, name, activation, partial(gate_of, module), compute, open_of=open_of(module))
        self._activations.add(module)
        traced = self.compiled.nothing()
        shared = self._states, self.counter, self.called, self.pass_by
        tap = ModuleTap(caller, *shared, traced, partial(self._writes, module))
        self.compiled.taps[module] = tap
        tap.hang(module)

    def _hook_new(self) -> list[nn.Module]:
        """Attach the taps of activation modules among those that have come."""
        if added := self._registry.take():
            self._of_declared = parts_of_declared(self._names)
            for module in added:
                remove_hooks(module, Inert)  # it may be a copy
                self._hook(module)
            self._schedule.warm_up()
        return added

    def _added_to(self, module: nn.Module) -> list[nn.Module]:
        """The modules that have come, if a module has other children than before; traces see them now."""
        added = self._hook_new() if self._registry.has_other_children(module) else []
        self._stack.attach(added, self._model)
        return added

    def _writes(self, module: nn.Module) -> bool:
        """Whether an activation module works in place, as it says or a trace saw."""
        return getattr(module, "inplace", False) is True or module in self.compiled.expected.in_place

    def _hook_part(self, module: nn.Module) -> None:
        keep = self._handles.append
        keep(module.register_forward_pre_hook(self._entry(), with_kwargs=True))
        self._function_taps.renew(module)  # they ask whether a forward runs
        keep(module.register_forward_hook(Call(self._leave, self._failed), always_call=True))

    def _entry(self) -> Call:
        return Call(self._enter, self._failed, self.compiled.begin)

    # --- the root's forward ---------------------------------------------------------------------

    def _enter(self, module: nn.Module, args: Any, kwargs: Mapping[str, Any] = NO_KEYWORDS) -> None:
        state, masking = self._states.own, self.counter.masking
        observed = self._training is None or module.training is self._training
        if state.depth and (module is state.entry or module is self._model):
            masked = masking.now is not None or bool(masking.pending)
            if module is state.entry and not masked and state.may_recur(observed=observed):
                state.depth += 1
                return
            self._traces -= state.tracing is not None
            self.compiled.resume()
            state.reset()
        if state.depth or (module is not self._model and self._is_recompute()):
            return
        state.depth, state.entry = 1, module
        if module is self._model or self._look:
            self._look = False
            self._hook_new()
        if self.counter.paused or is_jit_tracing():
            return
        capturing = is_capturing()
        if kwargs or masking.pending or masking.now is not None:
            masking.begin(kwargs if observed and not capturing else {})
        if not observed:
            self.unobserved_with_graph += torch.is_grad_enabled()
            return
        if capturing and (masking.used or not self.forwards):
            self.book.lose(self._not_captured)
            return
        if not state.seen:
            state.seen = True
            self._threads += 1
        self.counter.course.last.layer = None
        if self.compiled.restarts:
            self.compiled.begin()
        state.active, state.graph = True, torch.is_grad_enabled()
        self.forwards = forward = self.forwards + 1
        state.forward = forward
        if not CompilerStance.in_force:
            CompilerStance.look()
        if state.ordinals:
            state.ordinals.clear()
        if capturing:  # no trace while capturing: it might read a value from the device
            state.following = self.captured = True
            return
        if self.on_forward is not None:
            self.on_forward()
        every = self._traces_all or (not state.graph and self._between and module is not self._model)
        if self._schedule.is_due(state, module, args, kwargs, self.counter.course, every=every):
            if module is self._model and state.graph:
                self.compiled.note(args, kwargs)
            self._begin_trace(state, args, kwargs)
        else:
            state.following, state.fast = True, self._threads < 2 and masking.now is None

    def expect_no_forward(self) -> None:
        """Note that a step or a census was asked for: a forward that has begun no longer runs."""
        state, self._look = self._states.own, True
        state.interrupted = state.depth > 0

    @property
    def _traces_all(self) -> bool:
        counter = self.counter
        unknown = counter.masking.now is not None and not counter.masking.learned
        mixed = counter.ambiguous or counter.masking.mixed or counter.is_disordered(self._threads)
        return mixed or unknown or self._per_call or counter.on_call is not None

    @property
    def _not_captured(self) -> str:
        return MASKED if self.counter.masking.used else NO_FORWARD

    def _begin_trace(self, state: ForwardState, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        self._traces += 1
        self._schedule.begin(graph=state.graph)
        if not state.graph:
            self.counter.course.trace()
        self._stack.attach(self._names, self._model)
        self._layers.attach(self._names, frozen=state.graph and not self.counter.course.without)
        for module, tap in self.compiled.taps.items():
            tap.hang(module)
        self.compiled.pause()
        entry = self._model if state.entry is None else state.entry
        followed = self.provenance(self._model) if entry is self._model else self._follow()
        followed.recurrence = self._recurrence
        self._recurrence.separate()
        state.tracing = Trace(entry, self._functions.traced, followed)
        mask = self.counter.masking.now
        if mask is not None:
            self.counter.masking.learned = True
            state.tracing.streams = InputStreams(entry, args, kwargs, mask.shape[-1])
        state.tracing.start([*args, *kwargs.values()])

    def _follow(self) -> TensorProvenance:
        """The provenance that follows tensors from one submodule to the next."""
        if self._followed is None or len(self._followed) > MANY:
            self._followed = self.provenance(self._model)
            self._followed.recurrence = self._recurrence
        return self._followed

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        state = self._states.own
        if state.entry is not None and module is not state.entry:
            return  # a submodule inside a forward
        if state.depth != 1:
            state.depth = max(state.depth - 1, 0)
            return
        trace = state.tracing
        state.reset()
        if trace is not None:
            self._traces -= 1
            self.compiled.resume()
            self._recurrence.separate()
            self.compiled.expected.add(trace.seen)
            suspended = trace.to_suspend(self._activations, self._function_taps.owners)
            self._function_taps.attach(trace.owners, suspended)
            idle = self._schedule.is_over and not self._traces_all and self._traces <= 0
            if idle and self.forwards >= self._seek:
                self._stack.detach()
                self.ready = self.ready or self._schedule.with_graph

    # --- submodules called on their own ---------------------------------------------------------

    def _outside(self, module: nn.Module, args: Any, kwargs: Mapping[str, Any]) -> None:
        """Handle a module called outside of any forward: from now on its own forwards count."""
        known = module in self._parts or module in self._activations
        if known or self._states.own.depth or self._root_only or self.counter.paused or self._is_recompute():
            return
        self._parts[module] = None
        self._schedule.warm_up()
        self._hook_part(module)  # torch will call the end hook of this forward, but not its begin hook
        self._enter(module, args, kwargs)

    def pass_by(self, caller: Caller, module: nn.Module, z: Any, known: KnownCalls) -> None:
        """Handle an activation module called outside of a counted forward: it may count on its own."""
        state = self._states.own
        if self.counter.paused:
            return
        if is_jit_tracing():
            self.passed.setdefault(module, "torch.jit.trace alone called it")
            return
        if is_capturing():
            self.passed.setdefault(module, self._not_captured)
            return
        entry = module if state.entry is None else state.entry
        if self._training is not None and entry.training is not self._training:
            self.passed.setdefault(module, MODES[entry.training])
            return
        if state.depth or self._root_only or not isinstance(z, Tensor):
            self.passed.setdefault(module, "it was called outside of the model's forward")
            return
        self._between |= z.grad_fn is None
        if z.grad_fn is None and self._follow().get(z) is None:  # nothing shows which layer made z
            self.passed.setdefault(module, "it was called outside of the model's forward")
            if not self._stack.attached:
                self._stack.attach(self._names, self._model)
                self._seek = 2 * self.forwards + WARM_UP  # the submodule that contains it may be called again
                return
            if self.book.has(caller):
                self.counter.hide(caller, UNKNOWN_MAKER)
                return
        if known.knows(z) is None:  # there may be other submodules
            self._stack.attach(self._names, self._model)
            self._schedule.warm_up()
        self.counter.masking.begin({})
        self.forwards = state.forward = self.forwards + 1
        state.graph = torch.is_grad_enabled()
        state.ordinals.clear()
        if self.on_forward is not None:
            self.on_forward()
        self.called.add(module)
        self.counter.count(caller, z, known, False)

    def _is_recompute(self) -> bool:
        recompute = is_recompute()
        self.compiled.recomputes |= recompute
        return recompute

    def _failed(self, error: Exception) -> None:
        """Stop following a forward after an error: its remaining calls are not counted."""
        self.book.lose(failure("a forward", error))
        self._traces -= self._states.own.tracing is not None
        self.compiled.resume()
        self._states.own.reset()
