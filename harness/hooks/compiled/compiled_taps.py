"""CompiledTaps: observes compiled code, once a few eager forwards have shown its calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from harness.hooks._torch import can_trace_hooks, mark_static
from harness.hooks.compiled.compiler_stance import (
    CompilerStance,
    described,
    forget_compiled,
    is_compiled,
    is_one_graph,
    like,
)
from harness.hooks.compiled.expected_calls import ExpectedCalls, SeenCall
from harness.hooks.compiled.traceable import (
    FunctionCall,
    TracedCall,
    TracedCalls,
    TracedFunctions,
    TracedOwner,
)
from harness.hooks.counting import CallCounter
from harness.hooks.sites import OpenSite
from harness.hooks.taps import AfterCall, ModuleTap
from harness.kernels.statistics import leaf_of

MISSED = "some calls in compiled code are not counted: the first forwards had others"
UNSURE = (
    "activations called as functions were not counted in one forward, of which it was not known that it is"
    " compiled"
)
RETRIES = 2  # how often compiled code is recompiled because its calls differed from the expected ones


class CompiledTaps:
    """The traceable counterparts of a model's taps.

    Args:
        model: the root module.
        training: the mode in which forwards count; None: both.
        counter: counts the calls of eager forwards.
        gradients: whether ∂L/∂z is observed.
        per_call: whether repeated calls are kept apart.

    Attributes:
        taps: the eager taps of activation modules.
        follower: the feature that needs Python in every forward, "" if there is none.
        recomputes: whether a checkpoint has recomputed a forward.
        expected: the calls of traced forwards.
        functions: counts activations that are called as functions.
        reason: why compiled models run eagerly, "" if they need not.
    """

    def __init__(
        self, model: nn.Module, training: bool | None, counter: CallCounter, gradients: bool, per_call: bool
    ) -> None:
        self._model, self._training, self._gradients = model, training, gradients
        self._counter, self._per_call = counter, per_call
        self.taps: dict[nn.Module, ModuleTap] = {}
        self.follower, self.recomputes = "", False
        self.expected = ExpectedCalls()
        self.functions = TracedFunctions()
        self.reason = ""
        self._arguments: Any = None
        self._callers: list[TracedCalls] = []
        self._sites: list[OpenSite] = []
        self._retries = 0
        self.restarts = False  # whether an eager forward restarts the counts of compiled parts
        self._stance: CompilerStance | None = None

    # --- life ---------------------------------------------------------------------------------------

    def attach(self) -> CompilerStance:
        """Make compiled models run eagerly until `release`."""
        self._stance = CompilerStance()
        return self._stance

    def detach(self) -> None:
        """Restore compiled code without taps."""
        if self._stance is not None:
            self._stance.leave(traced=self.ran)
            self._stance = None

    @property
    def ran(self) -> bool:
        """Whether compiled code has counted anything."""
        return any(calls.turn for calls in self._callers) or any(
            bool(opened.statistics.compiled_n) for opened in self._sites
        )

    @property
    def how(self) -> str:
        """How compiled code is observed, as shown in a `Plan`."""
        reason = self.reason or self._obstacle()
        if reason:
            return f"runs eagerly, since {reason}"
        return "counted in the graph" if self.ran else ""

    @property
    def without_gradients(self) -> list[str]:
        """Sites whose ∂L/∂z is unknown in compiled code, which sees only the gradient via the activation."""
        calls = [call for calls in self.expected.calls.values() for call in calls]
        names = [call.opened.site.name for call in calls if call is not None and call.shared]
        return list(dict.fromkeys(names)) if self._gradients and self.ran else []

    def nothing(self) -> TracedCalls:
        """The counterpart of a tap that expects no call."""
        return TracedCalls(self._model, self._training)

    def note(self, args: Any, kwargs: Mapping[str, Any]) -> None:
        """Describe the arguments of a traced forward, so that compiling the model can be tried later."""
        self._arguments = described((tuple(args), dict(kwargs)))

    def begin(self, *_: Any) -> None:
        """Restart the call counts when a forward of the model begins."""
        for calls in self._callers:
            calls.turn = 0

    # --- the taps -----------------------------------------------------------------------------------

    def release(self) -> list[RemovableHandle]:
        """Build the taps and let the compiler run the model, or set `reason` if that is impossible.

        Returns:
            The handles of the hooks registered for it.
        """
        stance, unsure, self.functions.unsure = self._stance, self.functions.unsure, False
        if self.reason or stance is None:
            return []
        if unsure:  # code that did not seem to be compiled is compiled
            stance.take_back()
        if stance.released:
            return []
        self.reason = self._obstacle() or self._why_not()
        if self.reason:
            return []
        self._callers, self._sites = [], []
        built = {key: self._calls(calls) for key, calls in self.expected.calls.items()}
        handles: list[RemovableHandle] = []
        compiled = self.restarts = is_compiled(self._model)
        for module, tap in self.taps.items():
            tap.traced = built.get(module) or self.nothing()
            tap.in_place = tap.in_place or module in self.expected.in_place
            if module in built and not tap.has_after:
                after = AfterCall(tap, compiled=compiled)
                after.handle = module.register_forward_hook(after)
                tap.has_after = True
                handles.append(after.handle)
        for owner, index in self.functions.places.items():
            seen = self.expected.functions.get(owner)
            if seen is not None:
                calls = [FunctionCall(s.function, s.place, s.in_place, built.get(s.key)) for s in seen]
                self.functions.owners[index] = TracedOwner(calls)
        stance.release()
        owned = any(owner is not None for owner in self.functions.owners)
        if owned and (unsure or compiled):
            self._try(stance)
        return handles

    def _try(self, stance: CompilerStance) -> None:
        """Allow the function mode if the compiler makes one graph of a forward in which it is active."""
        self.functions.allowed = True
        if self._arguments is not None and is_one_graph(self._model, *like(self._arguments)):
            forget_compiled("with the units of its activations counted in the graph")
            return
        self.functions.allowed = False
        self.reason = "its activations are called as functions, and it is not seen to be one graph"
        stance.take_back()

    def missed(self) -> list[nn.Module]:
        """Modules whose calls in compiled code were unexpected; if any, models run eagerly again."""
        if self._stance is None or not self._stance.released:
            return []
        keys: list[nn.Module] = [module for module, tap in self.taps.items() if tap.traced.missed]
        keys += [self._model] if self.functions.missed else []
        owners = ((module, self.functions.owners[place]) for module, place in self.functions.places.items())
        keys += [module for module, owner in owners if owner is not None and owner.missed]
        if keys:
            self._retries += 1
            if self._retries > RETRIES:
                self.reason = "what it calls changes"
            self._stance.take_back()
            self.expected = ExpectedCalls()  # the calls are learned again
            self.functions.missed = False
        return keys

    def pause(self) -> None:
        """Run compiled code eagerly while a forward is traced."""
        if self._stance is not None:
            self._stance.pause()

    def resume(self) -> None:
        """Undo `pause` after the traced forward."""
        if self._stance is not None:
            self._stance.resume()

    def _calls(self, seen: list[SeenCall | None]) -> TracedCalls:
        """Traceable counterparts of a caller's calls."""
        before: set[int] = set()
        calls: list[TracedCall | None] = []
        for call in seen:
            calls.append(None if call is None else self._call(call, id(call.opened) in before))
            before.add(0 if call is None else id(call.opened))
        first = seen[0]
        is_one_site = first is not None and all(call is not None and call.like(first) for call in seen)
        further = self._call(first, True) if first is not None and is_one_site else None
        caller = TracedCalls(self._model, self._training, calls, further)
        self._callers.append(caller)
        return caller

    def _call(self, seen: SeenCall, same_forward: bool) -> TracedCall:
        statistics = seen.opened.statistics
        leaf = leaf_of(statistics) if self._gradients and not seen.shared else None
        for kept in (statistics.counts, statistics.sums, statistics.counted, leaf):
            if kept is not None:
                mark_static(kept)
        self._sites.append(seen.opened)
        assert seen.opened.gate is not None
        return TracedCall(
            statistics.running,
            statistics.counted,
            leaf,
            seen.layout,
            seen.ndim,
            seen.opened.gate,
            same_forward=same_forward,
            functions=self.functions,
        )

    def _obstacle(self) -> str:
        """Why compiled code cannot be observed at all, "" if it can."""
        if self.follower:
            return f"{self.follower} follows every forward"
        if self._per_call or self._counter.ambiguous:
            return "its calls are told apart one by one"
        if self._counter.sums.on_gradient is not None:
            return "its loss is scaled"
        if self.recomputes:
            return "it recomputes forwards in the backward pass"
        return "its forwards bring masks along" if self._counter.masking.used else ""

    def _why_not(self) -> str:
        """Which of the expected calls cannot be traced, and why; "" if all can."""
        if not can_trace_hooks():
            return "this version of torch does not trace hooks (2.13 does)"
        if self.expected.changing:
            return "its activations are called in changing order"
        for calls in self.expected.calls.values():
            for call in calls:
                if call is None:
                    continue
                name = call.opened.site.name
                if call.opened.gate is None or isinstance(call.opened.gate.low, Tensor):
                    return f"the gate of {name} is learned or declared"
                if call.opened.statistics.extensions:
                    return "it has statistics of its own"
                if not call.plain:
                    return f"the pre-activation of {name} is no plain tensor"
        functions = [s for seen in self.expected.functions.values() for s in seen if s.key is not None]
        if any(isinstance(s.place, int) and s.place < 0 for s in functions):
            return "the pre-activation of a function is none of its arguments"
        return ""
