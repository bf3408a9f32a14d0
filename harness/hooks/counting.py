"""CallCounter: counts each call of an activation into its site, or records why it cannot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from harness.activations.declared import GateError
from harness.graph.autograd import Leaf, ancestry, is_of_compiled
from harness.graph.making import making
from harness.graph.producers import Producer
from harness.graph.provenance import TensorProvenance
from harness.graph.units import UnitLayout
from harness.hooks._torch import (
    base_to_watch,
    is_recompute,
    is_view,
    outside_transforms,
    watch_gradient,
    without_transforms,
)
from harness.hooks.arguments import WrongArgument
from harness.hooks.captured import FIRST, FIXED_GATES, is_capturing, keep_alive
from harness.hooks.course import Course
from harness.hooks.forward_state import ForwardStates
from harness.hooks.known_calls import KnownCall, KnownCalls
from harness.hooks.masks import Masking
from harness.hooks.passes import WRITTEN_VIEW, GradientPasses, LeafHooks, below, unless_recorded
from harness.hooks.sites import Caller, OpenSite, SiteBook
from harness.hooks.sums import SiteSums
from harness.hooks.unobservable import NO_UNITS, OUT_OF_ORDER, UNDER_TRANSFORM, NotObservable, failure
from harness.kernels.countable import Uncountable, countable

ONE_AXIS = "its only axis may be that of the inputs; if it holds units, choose it with axis={name: -1}"


class CallCounter:
    """Counts calls of activations and the gradients that come back; never raises during training.

    Args:
        model: the root module.
        states: states of its forwards.
        book: the sites.
        follow: returns the provenance that follows tensors between calls of submodules.
        warm_up: requests traces of the next forwards; its argument: how often it was requested before.
        gate_eps: a gate is open where |f'(z)| exceeds it.
        gradients: whether ∂L/∂z is observed.
        per_call: keep repeated calls with the same producers apart.

    Attributes:
        masking: which inputs of a forward count.
        sums: adds what a call brings to the sums of its site.
        course: the course that the running forward takes.
        passes: separates backward passes that train from those inside a loss.
        leaves: hooks on pre-activations that are leaves.
        messages: pending warnings.
        reasons: base name of a site → why its first uncounted call was not counted.
        wrong_argument: an argument that turned out to be wrong in a forward; the next census raises it.
        on_call: receives every pre-activation (caller, site, z with its graph, layout); disables fast paths.
        paused: whether forwards are currently ignored.
        ambiguous: whether only a trace can tell sites apart.
    """

    def __init__(
        self,
        model: nn.Module,
        states: ForwardStates,
        book: SiteBook,
        follow: Callable[[], TensorProvenance],
        warm_up: Callable[[int], None],
        *,
        gate_eps: float,
        gradients: bool,
        per_call: bool,
    ) -> None:
        self._model, self._states, self._book = model, states, book
        self._follow, self._warm_up = follow, warm_up
        self._eps, self._gradients, self._per_call = gate_eps, gradients, per_call
        self.messages: dict[str, None] = {}
        self.reasons: dict[str, str] = {}
        self._lost = Counter[str]()  # caller → number of its calls that no trace has shown
        self.masking = Masking(model, self.say)
        self.sums = SiteSums(states, self.masking, gate_eps, self._refuse, self.failed)
        self.passes = GradientPasses(model)
        self.leaves = LeafHooks(self.passes)
        self.course = Course()
        self.wrong_argument: WrongArgument | None = None
        self.on_call: Callable[[Caller, str, Tensor, UnitLayout], None] | None = None
        self.paused = self.ambiguous = False

    def count(self, caller: Caller, z: Tensor, known: KnownCalls, recompute: bool) -> None:
        """Count the call of an activation on z, or record why it cannot be counted. Never raises."""
        if self._states.own.busy or self.paused:  # a declared gate calls a submodule
            return
        found = None
        try:
            with self.sums.lock:
                found = self._count(caller, z, known, recompute)
        except Exception as error:
            self._refuse(caller, error)
        finally:
            self._states.own.busy = False
        trace = self._states.own.tracing
        if trace is not None and not recompute:
            trace.seen.add(caller.key, z, found)

    def _count(
        self, caller: Caller, z: Tensor, known: KnownCalls, recompute: bool
    ) -> tuple[OpenSite, UnitLayout] | None:
        state = self._states.own
        if state.tracing is not None and caller.spelling == "module":
            state.tracing.enter_activation(caller.key, z)
        plain = without_transforms(z)
        if plain is None or plain.device.type == "meta":
            raise NotObservable(UNDER_TRANSFORM)
        if not plain.is_floating_point():
            raise NotObservable(f"its values are of type {str(plain.dtype).removeprefix('torch.')}")
        # Before the site is looked up, so that an error leaves no site without a count.
        countable(plain)
        opens = None if recompute else self.sums.opens(caller, z, plain)
        opened, layout = self._site(caller, z, known, recompute)
        if opened is None or layout is None:
            return None
        trace = state.tracing
        if trace is not None and trace.streams is not None and not recompute:
            self.masking.learn(opened.site.name, z, layout.axes, trace.streams)
        mask, captured = self.masking.at(opened.site.name), is_capturing()
        if captured:
            if opened.gate is None or opened.statistics.extensions:
                raise NotObservable(FIXED_GATES)
            keep_alive(opened.statistics)
        if not recompute:
            same_forward = opened.forward == state.forward
            opened.forward = state.forward
            state.busy = True  # our own computations are not part of the model
            with outside_transforms(z, plain):
                given = caller, opened, layout, plain, opens, mask
                self.sums.add(*given, same_forward=same_forward, captured=captured)
        if self.on_call is not None and not captured:
            state.busy = True
            with outside_transforms(z, plain):
                self.on_call(caller, opened.site.name, plain, layout)
        state.busy = False
        opened.without_graph |= not recompute and state.graph and not torch.is_grad_enabled()
        back = self.sums.backward(opened.statistics, layout, captured=captured)
        if self._gradients and z.requires_grad and not (captured and self.sums.on_gradient is not None):
            base = base_to_watch(z, known.writes)
            if base is None and is_view(z) and known.writes():
                self.say(f"{opened.site.name}: {WRITTEN_VIEW}")
            hook = back if mask is None else partial(back, mask=mask)
            if z.grad_fn is None and torch.is_grad_enabled():
                self.leaves.watch(z, opened.statistics, hook)
            elif z.grad_fn is not None:
                if recompute and self.passes.train():  # inside a pass that trains
                    hook = partial(unless_recorded, hook)
                else:
                    hook = partial(self.passes.hook, hook, below(z if base is None else base))
                watch_gradient(z, hook, base)
        if plain is z and not captured:
            self._remember(caller, z, known, opened, layout, back)
        return opened, layout

    def _site(
        self, caller: Caller, z: Tensor, known: KnownCalls, recompute: bool
    ) -> tuple[OpenSite | None, UnitLayout | None]:
        """The site of a call and its unit layout; None for both if they are unknown."""
        trace = self._states.own.tracing
        call = known.find(z, self._states.own.forward) if trace is None and not recompute else None
        if call is not None:
            return call.opened, call.layout
        found = ancestry(z)
        if recompute:
            return self._book.unique(caller, z, found, self._model)
        capturing = is_capturing()
        if capturing and caller.key not in self._book.uncounted:
            raise NotObservable(FIRST)
        if capturing or (trace is None and self._states.own.depth):
            if is_of_compiled(z):
                return self._book.unique(caller, z, found, self._model)
            if caller.key in self._book.uncounted:
                return None, None
            if without_transforms(z) is not z:  # never known: its parameters are other tensors each time
                only = self._book.unique(caller, z, found, self._model)
                self.ambiguous |= only[0] is None
                return only
            self._warm_up(self._lost[caller.name])  # an unknown call: trace the next forwards
            self._lost[caller.name] += 1
            return None, None
        followed = self._follow() if trace is None else trace.provenance
        origin = followed.get(z)
        if isinstance(followed.before(z), Producer):  # it keeps weights positive, say: they are no units
            self._book.uncounted.add(caller.key)
            return None, None
        made = making(z, origin, found, followed)
        if made.term:
            self._book.add_term(caller)
            return None, None
        if made.reason:
            raise NotObservable(made.reason)
        if not made.layout.size:
            raise NotObservable(NO_UNITS)
        if made.guessed and origin is not None and z.ndim == 1 and not self._book.is_given(caller):
            raise NotObservable(ONE_AXIS)
        number = 0
        if not made.producers or self._per_call:
            number = self._states.own.ordinals.get(caller.key, 0)
            self._states.own.ordinals[caller.key] = number + 1
        anew, behind = followed.recurrence.anew(caller.key, z), followed.recurrence.is_behind(caller.key, z)
        followed.recurrence.call(caller.key, z)
        way = None
        if origin is not None and origin.applied:
            same = caller.key, frozenset(made.producers), made.exact, made.layout.rows, origin.applied
            if not behind or self._states.own.is_gated(same):  # a cell applies its weights anew
                way = origin.path, *self._states.own.gates(same, origin.path, z)
        plain = without_transforms(z)
        with outside_transforms(z, z if plain is None else plain):  # the sums outlive the transform
            return self._book.site(caller, z, made, number, anew, way)

    def _remember(
        self,
        caller: Caller,
        z: Tensor,
        known: KnownCalls,
        opened: OpenSite,
        layout: UnitLayout,
        back: Callable[[Tensor], None],
    ) -> None:
        """Remember a call so that later ones take the fast path."""
        if self._per_call or self.on_call is not None:
            return
        without = z.grad_fn is None
        self.course.without |= without
        if known.is_ambiguous(z, opened):
            known.ordered |= without
            self.course.ordered |= without
            self.ambiguous |= not without  # only a trace tells the sites apart
        if without and caller.key in self._book.uncounted:
            self.ambiguous = True  # nor which calls count
        call = known.of(z, opened, layout)
        if call is None:
            if known.full:
                self.ambiguous = True
                return
            passes = self.passes if self._gradients else None
            how = self.course, passes, self.sums.on_gradient, known.writes
            call = KnownCall(opened, self._weights_behind(z), layout, z, *how)
            known.add(call)
        state = self._states.own
        if without and state.tracing is not None and not is_recompute():
            known.learn(call, state.forward)
        if without and z.requires_grad:  # see `LeafHooks`
            return
        call.prepare(z, self.sums.fast_paths(caller, opened, layout, back))

    def _weights_behind(self, z: Tensor) -> tuple[Leaf, ...]:
        """The leaves behind z by which a call is recognised: inputs may be leaves, too, but change."""
        trace = self._states.own.tracing
        known = (self._follow() if trace is None else trace.provenance).weights
        found = ancestry(z).leaves
        return tuple(x for x in found if isinstance(x.variable, nn.Parameter) or known.of(x.variable))

    def is_disordered(self, threads: int) -> bool:
        """Whether the order of calls without a graph tells nothing: it varies, or threads mix theirs."""
        if self.course.broken and self.course.relied:
            self.say(OUT_OF_ORDER)
        return self.course.broken or (self.course.ordered and threads > 1)

    def _refuse(self, caller: Caller, error: Exception) -> None:
        """Record an uncountable call by the error it raised."""
        if isinstance(error, WrongArgument):  # the user's mistake, but it must not end a forward
            self.wrong_argument = error
        own = isinstance(error, WrongArgument | NotObservable | Uncountable | GateError)
        self.hide(caller, str(error) if own else failure("it", error))

    def hide(self, caller: Caller, reason: str) -> None:
        """Record an uncountable call: as a row of its own, or as a warning if the site already has rows."""
        self.reasons.setdefault(caller.name, reason)
        if not self._book.hide(caller, reason):
            self.say(f"{caller.name} ({caller.activation}): some calls are not counted: {reason}")

    def failed(self, what: str, error: Exception) -> None:
        """Warn that something could not be observed; training continues."""
        self.say(failure(what, error))

    def say(self, message: str) -> None:
        """Queue a warning: raised at once, a warning turned into an error would end the user's forward."""
        self.messages.setdefault(message)
