"""EagerTaps: attaches observers to a model's forward and backward passes, and detaches them cleanly."""

from __future__ import annotations

import weakref
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import torch
from torch import nn

from harness.activations.declared import parts_of_declared
from harness.graph.plan import Plan, Site
from harness.hooks.compiled.compiled_taps import MISSED, UNSURE
from harness.hooks.forwards import ForwardHooks
from harness.hooks.hook import Call
from harness.hooks.passes import NOT_KNOWN, OUT_OF_SIGHT, USED_TWICE

ATTACHED: weakref.WeakSet[EagerTaps] = weakref.WeakSet()


class EagerTaps(ForwardHooks):
    """Observers of one model; arguments and attributes as in `ForwardHooks`."""

    def attach(self) -> None:
        """Register the hooks; compiled models run eagerly until their calls are known."""
        self._forgotten = weakref.finalize(self, self.compiled.attach().leave)
        self._attached = True
        ATTACHED.add(self)
        self._forgotten.atexit = False
        self._registry.take()
        scripted = isinstance(self._model, torch.jit.ScriptModule)  # scripted modules take no hooks
        keep = self._handles.append
        if not scripted:
            keep(self._model.register_forward_pre_hook(self._entry(), with_kwargs=True))
        self._of_declared = parts_of_declared(self._names)
        for module in self._names:
            self._hook(module)
        if not scripted:
            keep(self._model.register_forward_hook(Call(self._leave, self._failed), always_call=True))
        for part in self._parts:
            self._hook_part(part)
        self._stack.attach(self._names, self._model)
        self._schedule.warm_up()

    def detach(self) -> None:
        """Remove every hook and leave nothing in the model."""
        for handle in (*self._handles, *(tap.handle for tap in self.compiled.taps.values())):
            if handle is not None:
                handle.remove()
        self._handles.clear()
        self._stack.detach()
        self._layers.detach()
        self._function_taps.detach()
        self.counter.leaves.detach()
        self._states.own.reset()
        ATTACHED.discard(self)
        if self._attached:
            self.compiled.detach()
            self._forgotten()
            self._attached = False

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Context manager: attach the hooks for the duration of the block."""
        self.attach()
        try:
            yield
        finally:
            self.detach()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Context manager: ignore forwards in the block."""
        before, self.counter.paused = self.counter.paused, True
        try:
            yield
        finally:
            self.counter.paused = before

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Context manager: pause all other taps that observe a part of the model."""
        mine = set(self._model.modules())
        with ExitStack() as stack:
            for other in list(ATTACHED):
                if other is not self and not mine.isdisjoint(other._model.modules()):
                    stack.enter_context(other.paused())
            yield

    def unobserved(self, called: Collection[nn.Module]) -> list[Site]:
        """Sites that exist but cannot be observed, or are not among the modules `called` so far."""
        first = self._registry.first  # modules added later may never be called
        return self.book.unobserved(first, called, self.passed)

    @property
    def without_counts(self) -> dict[str, Site]:
        """Sites by name that were called but never counted, with the reason."""
        reasons = self.counter.reasons
        return {
            name: replace(site, reason=reasons.get(name.partition("#")[0], site.reason))
            for name, site in self.book.without_inputs.items()
        }

    def plan(self, unobserved: Collection[Site]) -> Plan:
        """The sites known so far, observed and unobserved."""
        found, empty = self.book.plan(unobserved), self.without_counts
        shown = tuple(empty.get(site.name, site) for site in found.unobserved)
        return replace(found, unobserved=shown, compiled=self.compiled.how)

    def say_unknown_gradients(self, *, trained: bool) -> None:
        """Warn why a window has no gradients, if it has none.

        Args:
            trained: whether a backward pass was ever seen.
        """
        for reason, name in self.unknown_norms.items() if trained else ():
            self.counter.say(f"{name}: grad_norm is not known, here and where the same holds: {reason}")
        for name in self.compiled.without_gradients:
            self.counter.say(f"{name}: {USED_TWICE}")
        if self.counter.passes.dropped and not trained and self.forwards:
            self.counter.say(NOT_KNOWN)
        if self.compiled.recomputes and self._gradients and trained:
            for name in self.book.without_gradients:
                self.counter.say(f"{name}: {OUT_OF_SIGHT}")

    def release(self) -> None:
        """Let compiled code run and attach its taps, once the model's calls are known. Not within a call."""
        self.ready = False
        if self.compiled.functions.unsure:
            self.counter.say(UNSURE)
        self._handles += self.compiled.release()

    def say_missed(self) -> None:
        """Trace again and warn if compiled code called something that the traced forwards did not."""
        if self.compiled.functions.missed and self.compiled.expected.all_seen_in(self.forwards):
            self.compiled.functions.missed = (
                False  # a backend that calls torch's functions: they were counted
            )
        for module in self.compiled.missed():
            name = "the model" if module is self._model else self._names.get(module, "?")
            self.counter.say(f"{name}: {MISSED}")
            self._schedule.warm_up()
