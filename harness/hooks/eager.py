"""EagerTaps: how a model's forward and backward passes are observed, attached and detached without a trace.

The first forwards, and later the 16th, 32nd, …, are traced: every torch function is seen, and with it where
each pre-activation comes from. All others follow what is known: a tap on each activation module, and an
interceptor in the forwards that call activations as functions. At every call autograd's own graph tells
whether the pre-activation is of the making that is known. Forwards without a graph are all traced.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from harness.activations import lookup as functional
from harness.activations.declared import GateError, parts_of_declared
from harness.activations.fused import fused_activation
from harness.activations.gates import Gate
from harness.activations.lookup import lookup
from harness.graph.autograd import ancestry
from harness.graph.making import making
from harness.graph.plan import Site
from harness.graph.provenance import TensorProvenance
from harness.graph.units import UnitLayout, arranged
from harness.hooks._torch import is_recompute, outside_transforms, watch_gradient, without_transforms
from harness.hooks.arguments import WrongArgument
from harness.hooks.compile import Eager
from harness.hooks.discovery import ModuleStack, Trace
from harness.hooks.function_taps import FunctionTaps, Interceptor
from harness.hooks.hook import Call
from harness.hooks.masks import Mask, Masking
from harness.hooks.module_registry import ModuleRegistry
from harness.hooks.passes import NOT_KNOWN, OUT_OF_SIGHT, GradientPasses, below
from harness.hooks.sites import Caller, OpenSite, Sink, SiteBook
from harness.hooks.taps import KnownCall, KnownCalls, ModuleTap
from harness.hooks.unit_statistic import unit_rows
from harness.hooks.unobservable import UNDER_TRANSFORM, NotObservable
from harness.hooks.zero_constants import ZeroConstants
from harness.kernels.countable import Uncountable
from harness.kernels.layout import as_units
from harness.kernels.prepared import prepare
from harness.kernels.statistics import UnitStatistics, update, update_gradient, update_open

THRESHOLDS = ("clamp", "maximum")  # activations on a layer's output alone
INPLACE = {"inplace"}
MODES = {True: "it was called in training mode alone", False: "it was called in evaluation mode alone"}
MANY = 10_000  # tensors that are followed across calls of parts
WARM_UP = 8  # forwards that are traced after attaching, and after a module has come


class ForwardState(threading.local):
    """What one thread's forward is about.

    Attributes:
        entry: the module whose forward counts: the model, or a part that is called by itself.
        depth: forwards of it that run, one inside the other.
        active: whether the forward counts.
        seen: whether the thread has run a forward before.
        following: whether it counts and follows what is known.
        fast: whether it may do so by the fast path, which takes no lock.
        forward: its number.
        tracing: its trace, None if it has none.
        busy: whether our own computations run.
        graph: whether autograd records it.
        ordinals: caller → calls so far in this forward.
    """

    def __init__(self, handle: Callable[..., Any]) -> None:
        self.depth = self.forward = 0
        self.active = self.following = self.fast = self.busy = self.seen = False
        self.graph = True
        self.entry: nn.Module | None = None
        self.tracing: Trace | None = None
        self.ordinals: dict[Any, int] = {}
        self.interceptor = Interceptor(handle)

    def reset(self) -> None:
        """No forward runs."""
        self.active = self.following = self.fast = self.busy = False
        self.depth, self.entry = 0, None
        if self.tracing is not None:
            self.tracing.stop()
            self.tracing = None
        if self.interceptor.running:
            self.interceptor.reset()


class EagerTaps:
    """Observation of one model.

    Args:
        model: the root.
        sink: receives what is seen.
        observe: "train", "eval" or "all": forwards of the root in that mode.
        gate_eps: a gate is open where |f'(z)| exceeds it.
        gradients: whether ∂L/∂z is watched.
        per_call: keep repeated calls with the same producers apart.
        axis: site name → unit axis, overriding what is found.
        root_only: only the root's own forwards count, not those of parts that are called by themselves.

    Attributes:
        forwards: that were counted.
        called: activation modules that were called in them.
        passed: activation modules that were called otherwise, and how.
        book: the sites.
        messages: warnings that are still to be said.
        masking: which inputs of a forward count.
        on_forward: called when one begins.
        passes: tell those that train from those inside of a loss.
        on_gradient: called for every ∂L/∂z, before it is counted.
        wrong_argument: an argument that turned out to be wrong in a forward; a census raises it.
        on_call: takes every pre-activation (caller, site, z, layout); then there is no fast path.
        provenance: makes what follows the tensors of a traced forward.
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
        self._model, self._eps = model, gate_eps
        self._training = None if observe == "all" else observe == "train"
        self._gradients, self._per_call = gradients, per_call
        self._registry = ModuleRegistry(model)
        self._names = self._registry.names
        self._handles: list[RemovableHandle] = []
        self._lock = threading.RLock()
        self.state = ForwardState(self._intercepted)
        self._stack = ModuleStack(lambda: self.state.tracing, self._outside, self._failed)
        self._function_taps = FunctionTaps(self._interceptor, self._failed)
        self._known_functions: dict[Any, KnownCalls] = {}
        self._bare_calls: dict[Any, KnownCalls] = {}  # by owner and function, for calls without arguments
        self._activations: set[nn.Module] = set()
        self._root_only = root_only
        self._parts: dict[nn.Module, None] = {}  # that were called by themselves
        self._of_declared: set[nn.Module] = set()
        self._followed: TensorProvenance | None = None  # across calls of parts
        self._zeros = ZeroConstants()
        self.book = SiteBook(sink, gate_eps, axis)
        self.messages: dict[str, None] = {}
        self._to_trace, self._threads, self._traces = WARM_UP, 0, 0
        self._recomputes = self._always = self._recursive = self._paused = self._attached = False
        self.forwards = 0
        self.called: set[nn.Module] = set()
        self.passed: dict[nn.Module, str] = {}
        self.wrong_argument: WrongArgument | None = None
        self.masking = Masking(model, self._say)
        self.passes = GradientPasses(model)
        self.on_forward: Callable[[], None] | None = None
        self.on_gradient: Callable[[], None] | None = None
        self.on_call: Callable[[Caller, str, Tensor, UnitLayout], None] | None = None
        self.provenance: Callable[[nn.Module], TensorProvenance] = TensorProvenance

    # --- attach and detach ----------------------------------------------------------------------

    def attach(self) -> None:
        """Register the hooks; until `detach`, compiled models run eagerly, since compiled code has none."""
        Eager.enter()
        self._attached = True
        self._forgotten = weakref.finalize(self, Eager.leave)
        self._forgotten.atexit = False
        self._registry.take()
        scripted = isinstance(self._model, torch.jit.ScriptModule)  # takes no hooks
        keep = self._handles.append
        if not scripted:
            keep(self._model.register_forward_pre_hook(Call(self._enter, self._failed), with_kwargs=True))
        self._of_declared = parts_of_declared(self._names)
        for module in self._names:
            self._hook(module)
        if not scripted:
            keep(self._model.register_forward_hook(Call(self._leave, self._failed), always_call=True))
        for part in self._parts:
            self._hook_part(part)
        self._stack.attach(self._names, self._model)
        self._registry.listen()
        self._to_trace = WARM_UP

    def detach(self) -> None:
        """Remove every hook; nothing of ours stays in the model."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._stack.detach()
        self._function_taps.detach()
        self.state.reset()
        if self._attached:
            self._registry.stop()
            self._forgotten()
            self._attached = False

    def _hook(self, module: nn.Module) -> None:
        """The tap of an activation module."""
        found = lookup(module)
        if found is None or isinstance(module, torch.jit.ScriptModule) or module in self._of_declared:
            return
        activation, gate_of = found
        name = self._names[module] or f":{activation}"
        compute, open_of = partial(type(module).forward, module), functional.open_of(module)
        caller = Caller(module, name, activation, partial(gate_of, module), compute, open_of=open_of)
        self._activations.add(module)
        self._handles.append(module.register_forward_pre_hook(ModuleTap(self, caller), with_kwargs=True))

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Forwards in the block are not ours."""
        self._paused = True
        try:
            yield
        finally:
            self._paused = False

    def unobserved(self, called: Collection[nn.Module]) -> list[Site]:
        """Sites that are there but cannot be observed, or are not among the modules `called` so far."""
        first = self._registry.first  # later modules may never be called
        return self.book.unobserved(first, called, self.passed)

    def say_unknown_gradients(self, *, trained: bool) -> None:
        """Say why a window has no gradients, where it has none.

        Args:
            trained: whether a backward pass was ever seen.
        """
        if self.passes.dropped and not trained and self.forwards:
            self._say(NOT_KNOWN)
        if self._recomputes and self._gradients and trained:
            for name in self.book.without_gradients:
                self._say(f"{name}: {OUT_OF_SIGHT}")

    # --- the root's forward ---------------------------------------------------------------------

    def _enter(self, module: nn.Module, args: Any, kwargs: Mapping[str, Any]) -> None:
        state = self.state
        if state.depth and (module is state.entry or module is self._model):
            if self._recursive:
                state.depth += 1
                return
            self._traces -= state.tracing is not None
            state.reset()  # the last forward was interrupted, and then torch calls no hook
        if state.depth or (module is not self._model and self._is_recompute()):
            return
        state.depth, state.entry = 1, module
        if self._registry.changed:
            added, self._of_declared = self._registry.take(), parts_of_declared(self._names)
            for one in added:
                self._hook(one)
                self._to_trace = WARM_UP
        if not self._paused:
            self.masking.begin()
        if self._paused or (self._training is not None and module.training is not self._training):
            return
        if not state.seen:
            state.seen = True
            self._threads += 1
        state.active, state.graph = True, torch.is_grad_enabled()
        self.forwards = forward = self.forwards + 1
        state.forward = forward
        if not Eager.in_force:
            Eager.look()
        if state.ordinals:
            state.ordinals.clear()
        if self.on_forward is not None:
            self.on_forward()
        if self._to_trace > 0 or forward & (forward - 1) == 0 or not state.graph or self._traces_all:
            self._begin_trace(state, [*args, *kwargs.values()])
        else:
            state.following, state.fast = True, self._threads < 2 and self.masking.now is None

    @property
    def _traces_all(self) -> bool:
        return self._always or self._per_call or self.on_call is not None

    def _begin_trace(self, state: ForwardState, values: Sequence[Any]) -> None:
        self._to_trace -= state.graph  # without a graph every forward is traced, and none is known by it
        self._traces += 1
        self._stack.attach(self._names, self._model)
        entry = self._model if state.entry is None else state.entry
        followed = self.provenance(self._model) if entry is self._model else self._follow()
        state.tracing = Trace(entry, self._traced, followed)
        state.tracing.start(values)

    def _follow(self) -> TensorProvenance:
        """What follows tensors from one part to the next."""
        if self._followed is None or len(self._followed) > MANY:
            self._followed = self.provenance(self._model)
        return self._followed

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        state = self.state
        if state.entry is not None and module is not state.entry:
            return  # a part inside of a forward
        if state.depth != 1:
            # without a forward that began: what seemed an interrupted one was one inside another
            self._recursive = self._recursive or (state.depth == 0 and not is_recompute())
            state.depth = max(state.depth - 1, 0)
            return
        trace = state.tracing
        state.reset()
        if trace is not None:
            self._traces -= 1
            suspended = trace.to_suspend(self._activations)
            self._function_taps.attach(trace.owners, suspended)
            if self._to_trace <= 0 and not self._traces_all and state.graph and self._traces <= 0:
                self._stack.detach()

    # --- parts that are called by themselves ---------------------------------------------------------

    def _outside(self, module: nn.Module, args: Any) -> None:
        """A module is called outside of any forward: from now on its own forwards count."""
        known = module in self._parts or module in self._activations
        if known or self.state.depth or self._root_only or self._paused or self._is_recompute():
            return
        self._parts[module] = None
        self._to_trace = max(self._to_trace, WARM_UP)
        self._hook_part(module)  # torch calls the hook of this forward's end, but not of its beginning
        self._enter(module, args, {})

    def _hook_part(self, module: nn.Module) -> None:
        keep = self._handles.append
        keep(module.register_forward_pre_hook(Call(self._enter, self._failed), with_kwargs=True))
        keep(module.register_forward_hook(Call(self._leave, self._failed), always_call=True))

    def pass_by(self, caller: Caller, module: nn.Module, z: Any, known: KnownCalls) -> None:
        """An activation module is called in no forward that counts; by itself, it is a part."""
        state = self.state
        if self._paused:
            return
        entry = module if state.entry is None else state.entry
        if self._training is not None and entry.training is not self._training:
            self.passed.setdefault(module, MODES[entry.training])
            return
        if state.depth or self._root_only or not isinstance(z, Tensor):
            self.passed.setdefault(module, "it was called outside of the model's forward")
            return
        self._stack.attach(self._names, self._model)  # there may be other parts
        self._to_trace = max(self._to_trace, 1)
        self.masking.begin()
        self.forwards = state.forward = self.forwards + 1
        state.graph = torch.is_grad_enabled()
        state.ordinals.clear()
        if self.on_forward is not None:
            self.on_forward()
        self.called.add(module)
        self.count(caller, z, known, False)

    def _is_recompute(self) -> bool:
        recompute = is_recompute()
        self._recomputes |= recompute
        return recompute

    # --- functions ------------------------------------------------------------------------------

    def _interceptor(self) -> Interceptor | None:
        state = self.state
        return state.interceptor if state.following or (is_recompute() and not self._paused) else None

    def _intercepted(self, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """An owner calls an activation as a function."""
        state = self.state
        if state.busy or not (state.following or is_recompute()):
            return
        try:
            self._called(state, function, args, kwargs)
        except Exception as error:
            self.failed("a call of an activation", error)

    def _called(self, state: ForwardState, function: Any, args: Sequence[Any], kwargs: Any) -> None:
        owner = state.interceptor.owner
        bare = len(args) == 1 and (not kwargs or kwargs.keys() == INPLACE)
        if bare and state.fast and not is_recompute():  # nothing to bind
            known = self._bare_calls.get((owner, function))
            if known is not None and (known.only or known).count(args[0], state.forward):
                return
        found = functional.bound(function, args, kwargs, _has_graph, self._is_planned_zero)
        if found is not None:
            name, z, arguments = found
            self._function(owner, name, z, arguments)
            if bare:
                self._bare_calls[owner, function] = self._known_functions[owner, functional.shown(name)]

    def _function(self, owner: nn.Module, name: str, z: Tensor, arguments: Mapping[str, Any]) -> None:
        shown = functional.shown(name)
        key = owner, shown
        known = self._known_functions.get(key)
        recompute = is_recompute()
        if known is None:
            known = self._known_functions[key] = KnownCalls()
        elif self.state.fast and not recompute and known.count(z, self.state.forward):
            return
        if not functional.is_activation(name, arguments, self._eps):
            return
        full = f"{self._names.get(owner, '?')}:{shown}"
        gate_of = partial(_gate_of_call, name, arguments)
        compute = partial(functional.compute, name, arguments)
        asked = functional.asked(arguments)
        caller = Caller(key, full, shown, gate_of, compute, "function", asked.open_of, asked.lasts)
        self.count(caller, z, known, recompute)

    def _traced(self, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Called by a trace for every torch function instead of its being called."""
        state = self.state
        trace = state.tracing
        if state.busy or trace is None or trace.inside:
            return function(*args, **kwargs)
        trace.called()
        activated: Any = None
        try:
            found = functional.bound(function, args, kwargs, self._is_data, self._is_zero)
            if found is not None and not functional.is_activation(found[0], found[2], self._eps):
                found = None
            if found is not None and functional.shown(found[0]) in THRESHOLDS:
                origin = trace.provenance.get(found[1])
                if origin is None or not origin.direct:
                    self.book.uncounted.add((trace.stack[-1], functional.shown(found[0])))
                    found = None  # coordinates, losses, probabilities: no units that could be dead
            if found is not None:
                owner = trace.stack[-1]
                trace.owners.add(owner)
                activated = trace.provenance.get(found[1]), found[1].shape
                self._function(owner, found[0], found[1], found[2])
            elif (fused := fused_activation(function, args)) is not None:
                self._hide(_caller_of_fused(trace.stack[-1], self._names, fused[0]), fused[1])
        except Exception as error:
            self.failed("a call of an activation", error)
        out = function(*args, **kwargs)
        try:
            if activated is not None:
                origin, shape = activated
                trace.provenance.activated(origin, shape, out)
            else:
                trace.provenance.follow(function, args, kwargs, out)
        except Exception as error:
            self.failed(f"torch's {getattr(function, '__name__', function)}", error)
        return out

    def _is_data(self, tensor: Tensor) -> bool:
        trace = self.state.tracing
        return trace is not None and trace.provenance.get(tensor) is not None

    def _is_planned_zero(self, tensor: Tensor) -> bool:
        """A device is not asked again for what a trace has shown."""
        return not tensor.is_cpu or self._zeros.is_zero(tensor)

    def _is_zero(self, tensor: Tensor) -> bool:
        trace = self.state.tracing
        if trace is not None and trace.provenance.made_of_zeros(tensor):
            return True
        return self._zeros.is_zero(tensor)

    # --- counting -------------------------------------------------------------------------------

    def count(self, caller: Caller, z: Tensor, known: KnownCalls, recompute: bool) -> None:
        """An activation is about to be called on z: count it, or say why not. It never raises."""
        if self.state.busy or self._paused:  # a declared gate calls a part of the model
            return
        try:
            with self._lock:
                self._count(caller, z, known, recompute)
        except WrongArgument as error:  # the user's mistake, but not one that ends a forward
            self.wrong_argument = error
            self._hide(caller, str(error))
        except (NotObservable, Uncountable, GateError) as error:
            self._hide(caller, str(error))
        except Exception as error:
            self._hide(caller, _failure("it", error))
        finally:
            self.state.busy = False

    def _count(self, caller: Caller, z: Tensor, known: KnownCalls, recompute: bool) -> None:
        state = self.state
        if state.tracing is not None and caller.spelling == "module":
            state.tracing.enter_activation(caller.key, z)
        plain = without_transforms(z)
        if plain is None or plain.device.type == "meta":
            raise NotObservable(UNDER_TRANSFORM)
        if not plain.is_floating_point():
            raise NotObservable(f"its values are of type {str(plain.dtype).removeprefix('torch.')}")
        # Before the site is looked up, so that an error leaves no site without a count.
        opens = None if recompute else self._opens(caller, z, plain)
        opened, layout = self._site(caller, z, known, recompute)
        if opened is None or layout is None:
            return
        mask = self.masking.at(opened.site.name)
        if not recompute:
            gate = caller.gate_of(self._eps) if opened.gate is None else opened.gate
            same_forward = opened.forward == state.forward
            opened.forward = state.forward
            state.busy = True  # what is computed here is no part of the model
            with outside_transforms(z, plain):
                value, axes = arranged(plain.detach(), layout), layout.axes
                is_open = None if opens is None else arranged(opens, layout)
                if mask is not None:
                    found = self.masking.rows(mask, value, is_open, axes, caller.key, opened.site.name)
                    value, is_open, axes = found
                if is_open is None:
                    update(opened.statistics, value, gate, axes, same_forward=same_forward)
                else:
                    update_open(opened.statistics, value, is_open, axes, same_forward=same_forward)
                for extension in opened.statistics.extensions:
                    extension.update(unit_rows(as_units(value, axes)))
        if self.on_call is not None:
            state.busy = True
            with outside_transforms(z, plain):
                self.on_call(caller, opened.site.name, plain.detach(), layout)
        state.busy = False
        opened.without_graph |= not recompute and state.graph and not torch.is_grad_enabled()
        back = partial(self._backward, opened.statistics, layout)
        if self._gradients and z.requires_grad:
            hook = back if mask is None else partial(back, mask=mask)
            if not (recompute and self.passes.train()):  # else part of a pass that trains, whatever its own
                hook = partial(self.passes.hook, hook, below(z))
            watch_gradient(z, hook)
        if plain is z:
            self._remember(z, known, opened, layout, back)

    def _opens(self, caller: Caller, z: Tensor, plain: Tensor) -> Tensor | None:
        """Which gates are open, where a declaration tells it."""
        if caller.open_of is None:
            return None
        state = self.state
        fast, state.fast, state.busy = state.fast, False, True
        try:
            with outside_transforms(z, plain):
                return caller.open_of(plain)
        finally:
            state.fast, state.busy = fast, False

    def _site(
        self, caller: Caller, z: Tensor, known: KnownCalls, recompute: bool
    ) -> tuple[OpenSite | None, UnitLayout | None]:
        """The site of a call and where its units lie; nothing where that is not known."""
        trace = self.state.tracing
        call = known.find(z) if trace is None else None
        if call is not None:
            return call.opened, call.layout
        found = ancestry(z)
        if recompute:
            return self.book.recomputed(caller, z, found, self._model)
        if trace is None and self.state.depth:
            if caller.key not in self.book.uncounted:
                self._to_trace = max(self._to_trace, 1)  # something that is not known: the next forward tells
            return None, None
        followed = self._follow() if trace is None else trace.provenance
        made = making(z, followed.get(z), found, followed)
        if made.term:
            self.book.add_term(caller)
            return None, None
        if made.reason:
            raise NotObservable(made.reason)
        number = 0
        if not made.producers or self._per_call:
            number = self.state.ordinals.get(caller.key, 0)
            self.state.ordinals[caller.key] = number + 1
        opened, layout = self.book.site(caller, z, made, number)
        return opened, layout

    def _remember(
        self,
        z: Tensor,
        known: KnownCalls,
        opened: OpenSite,
        layout: UnitLayout,
        back: Callable[[Tensor], None],
    ) -> None:
        """Next time a call like this is a known one; forwards without a graph are all traced."""
        if self._per_call or self.on_call is not None or not self.state.graph:
            return
        if known.is_ambiguous(z, opened):
            self._always = True  # nothing tells the sites apart but a trace
        if known.has(z, opened, layout):
            return
        prepared = None
        if opened.gate is not None and layout.split is None and not opened.statistics.extensions:
            prepared = prepare(opened.statistics, z, layout.axes, opened.gate, back)
        leaves = ancestry(z).leaves
        passes = self.passes if self._gradients else None
        known.add(KnownCall(opened, leaves, layout, z, prepared, passes, self.on_gradient))

    def _backward(
        self, statistics: UnitStatistics, layout: UnitLayout, gradient: Tensor, mask: Mask | None = None
    ) -> None:
        try:
            if self.on_gradient is not None:
                self.on_gradient()
            plain = without_transforms(gradient)
            if plain is not None and plain.device.type != "meta":
                with self._lock, outside_transforms(gradient, plain):
                    value, axes = arranged(plain.detach(), layout), layout.axes
                    if mask is not None:
                        value, axes = mask.rows(value, axes) or (value, axes)
                    update_gradient(statistics, value, axes)
                    for extension in statistics.extensions:
                        extension.update_gradient(unit_rows(as_units(value, axes)))
        except Exception as error:
            self.failed("a gradient", error)

    def _hide(self, caller: Caller, reason: str) -> None:
        if not self.book.hide(caller, reason):
            self._say(f"{caller.name} ({caller.activation}): some calls are not counted: {reason}")

    def _failed(self, error: Exception) -> None:
        """A forward cannot be followed: what it still calls is not counted."""
        self.book.lose(_failure("a forward", error))
        self._traces -= self.state.tracing is not None
        self.state.reset()

    def failed(self, what: str, error: Exception) -> None:
        """Something could not be observed; training goes on."""
        self._say(_failure(what, error))

    def _say(self, message: str) -> None:
        """Not at once: a warning may be an error, and is none of the forward's."""
        self.messages.setdefault(message)


def _failure(what: str, error: Exception) -> str:
    return f"observing {what} failed, training goes on ({type(error).__name__}: {error})"


def _caller_of_fused(owner: nn.Module, names: Mapping[nn.Module, str], activation: str) -> Caller:
    """Named as if the activation were called apart, as it is before the model is fused."""
    name = f"{names.get(owner, '?')}:{activation}"
    return Caller((owner, activation), name, activation, lambda _: Gate(), lambda _: None, "function")


def _has_graph(tensor: Tensor) -> bool:
    return tensor.requires_grad


def _gate_of_call(name: str, arguments: Mapping[str, Any], eps: float) -> Gate:
    gate = functional.gate(name, arguments, eps)
    assert gate is not None
    return gate
