"""Taps: how a forward and backward pass is observed, attached and detached without a trace.

Module hooks see activation modules and the layers that feed them. A function mode sees activations that are
called as functions; it is entered only for models that need it, which trial forwards (the 1st, 2nd, 4th, …)
tell. Everything works on detached tensors, keeps none alive, and never asks the device for a value.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from harness.activations import functional
from harness.activations.functional import calls_functions
from harness.activations.table import Gate, lookup
from harness.hooks.eager import Eager
from harness.hooks.hook import Call
from harness.hooks.lineage import Lineage
from harness.hooks.mode import FunctionWatch
from harness.hooks.module_hooks import Activation, Caller, Layer, OpenSite
from harness.hooks.newcomers import Newcomers
from harness.hooks.sites import (
    TRANSPARENT,
    Origin,
    Site,
    guess_axis,
    layer_axis,
    shown_axis,
)
from harness.hooks.tensors import outside_transforms, plain, recomputing, watch_gradient
from harness.hooks.unseen import UNDER_TRANSFORM, hidden, unseen
from harness.hooks.zeros import Zeros
from harness.kernels.fast_path import Counter, counter
from harness.kernels.statistics import UnitStatistics, update, update_gradient

UNKNOWN = Origin(None, None)


class Sink(Protocol):
    """Who owns the sums; sites are numbered from 0 in order of first call."""

    def opened(
        self, index: int, site: Site, device: torch.device, producer: nn.Module | None
    ) -> UnitStatistics:
        """A new site; returns its running sums, into which every call of it is counted."""
        ...


class Taps:
    """Observation of one model.

    Args:
        model: the root; only its own forwards count, not calls of its parts.
        sink: receives what is seen.
        observe: "train", "eval" or "all": forwards of the root in that mode.
        gate_eps: a gate is open where |f'(z)| exceeds it.
        gradients: whether ∂L/∂z is watched.
        per_call: keep repeated calls with the same producer apart.
        axis: site name → unit axis, overriding what is found.
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
    ) -> None:
        self._model, self._sink, self._observe, self._eps = model, sink, observe, gate_eps
        self.gradients, self.per_call, self._axes = gradients, per_call, dict(axis or {})
        self._newcomers = Newcomers(model)
        self._names = self._newcomers.names
        self.lineage = Lineage(model)
        self._handles: list[RemovableHandle] = []
        self._sites: dict[tuple[Any, ...], OpenSite] = {}
        self._calls: dict[Any, int] = {}
        self._named: dict[str, int] = {}
        self._gates: dict[str, Callable[[float], Gate]] = {}
        self._hidden: dict[str, Site] = {}
        self._busy = False
        self._attached = False
        self._depth = 0
        self.forwards = 0
        self.active = False  # a forward that counts is running
        self.watching = False  # and its functions are watched
        self.functions = FunctionWatch(model, self._names, self._function, self._activated)
        self._paused = False
        self._zeros = Zeros()
        self.needs_functions = calls_functions(model)
        self.called: set[nn.Module] = set()
        self.on_forward: Callable[[], None] | None = None
        self.on_call: Callable[[Caller, str, Tensor, int], None] | None = None  # told of every pre-activation

    # --- attach and detach ----------------------------------------------------------------------

    def attach(self) -> None:
        """Register the hooks; until `detach`, compiled models run eagerly, since compiled code has none."""
        Eager.enter()
        self._attached = True
        self._forgotten = weakref.finalize(self, Eager.leave)
        self._forgotten.atexit = False
        for module in self._newcomers.take():
            self.lineage.own(module)
        keep = self._handles.append
        keep(self._model.register_forward_pre_hook(Call(self._enter), with_kwargs=True))
        for module in self._names:
            self._hook(module)
        keep(self._model.register_forward_hook(Call(self._leave), always_call=True))
        self._newcomers.listen()

    def detach(self) -> None:
        """Remove every hook; nothing of ours stays in the model."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.functions.leave(again=False)
        self.lineage.clear()
        if self._attached:
            self._newcomers.stop()
            self._forgotten()
            self._attached = False
        self._depth, self.active, self.watching, self._busy = 0, False, False, False

    def _hook(self, module: nn.Module) -> None:
        """What a module of the tree is hooked by."""
        if isinstance(module, torch.jit.ScriptModule):
            return  # takes no hooks
        keep, known = self._handles.append, lookup(module)
        if known is not None:
            activation, gate_of = known
            name = self._names[module] or f":{activation}"
            call = Caller(module, name, activation, partial(gate_of, module))
            keep(module.register_forward_pre_hook(Activation(self, call), with_kwargs=True))
        elif layer_axis(module, 4) is not None:
            keep(module.register_forward_hook(Layer(self, module)))
        elif isinstance(module, TRANSPARENT):
            keep(module.register_forward_hook(Call(self._transparent)))

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Forwards in the block are not ours."""
        self._paused = True
        try:
            yield
        finally:
            self._paused = False

    @property
    def gates(self) -> dict[str, Gate]:
        """Site name → where its gate is open now."""
        return {name: gate_of(self._eps) for name, gate_of in self._gates.items()}

    def unseen(self, called: Collection[nn.Module]) -> list[Site]:
        """Sites that are there but cannot be observed, or are not among the modules `called` so far."""
        # modules that came later and are never called are no loss
        return unseen(self._newcomers.first, self._hidden.values(), called)

    # --- the root's forward ---------------------------------------------------------------------

    def _enter(self, module: nn.Module, args: Any, kwargs: Mapping[str, Any]) -> None:
        if self._depth and _running(module) < 2:
            self._after_forward()  # the last forward was interrupted, and then torch calls no hook
        self._depth += 1
        if self._depth > 1:
            return
        training = module.training
        if self._newcomers.expected:
            for newcomer in self._newcomers.take():
                self.lineage.own(newcomer)
                self._hook(newcomer)
        if self._paused or not (self._observe == "all" or training == (self._observe == "train")):
            return
        self.active = True
        self.forwards += 1
        if not Eager.in_force:
            Eager.look()
        if self._calls:
            self._calls.clear()
        if self.on_forward is not None:
            self.on_forward()
        if self.needs_functions or self.forwards & (self.forwards - 1) == 0:
            for value in (*args, *kwargs.values()):
                if isinstance(value, Tensor):
                    self.lineage.put(value, UNKNOWN)
            self.watching = True
            self.functions.enter()

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._after_forward()

    def _after_forward(self) -> None:
        self._depth, self.active, self._busy = 0, False, False
        self.lineage.known.clear()
        if self.watching:
            self.watching = False
            self.functions.leave(again=self.needs_functions)

    # --- layers ---------------------------------------------------------------------------------

    def _transparent(self, module: nn.Module, args: Any, output: Any) -> None:
        if (self.active or recomputing()) and args and isinstance(output, Tensor):
            origin = self.lineage.get(args[0])
            if origin is not None and output.ndim == args[0].ndim:
                self.lineage.put(output, origin)

    # --- activations ----------------------------------------------------------------------------

    def _activated(self, module: nn.Module, args: Any, output: Any) -> None:
        if self.active and args and isinstance(output, Tensor) and output is not args[0]:
            origin = self.lineage.get(args[0])
            if origin is not None and output.shape == args[0].shape:
                self.lineage.put(output, Origin(origin.producer, origin.axis, direct=False))

    def _function(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Called by the mode for every torch function of a watched forward."""
        if self._busy:
            return func(*args, **kwargs)
        if self.active and not self.functions.inside_activation:
            found = functional.bound(func, args, kwargs, self._is_data, self._is_zero)
            if found is not None:
                name, z, arguments = found
                if functional.gate(name, arguments, self._eps) is not None:
                    self.needs_functions = True
                    where, shown = self.functions.where, functional.shown(name)
                    gate_of = partial(_gate_of_call, name, arguments)
                    caller = Caller((where, shown), f"{self._names[where]}:{shown}", shown, gate_of)
                    self.observed(caller, z, recomputing())
        out = func(*args, **kwargs)
        if self.active:
            self.lineage.follow(getattr(func, "__name__", ""), args, kwargs, out)
        return out

    def observed(self, caller: Caller, z: Tensor, recomputed: bool) -> tuple[OpenSite, Counter] | None:
        """One call of an activation, about to happen on z; returns the short way for calls like it."""
        value = plain(z)
        if value is None:
            self._hidden[caller.name] = hidden(caller.name, caller.activation, UNDER_TRANSFORM)
            return None
        origin = self.lineage.get(z)
        producer = None
        if origin is not None:
            producer = origin.producer
            if not origin.direct and self.watching:
                self.needs_functions = True
        call = 0
        if producer is None or self.per_call:
            call = self._calls.get(caller.key, 0)
            self._calls[caller.key] = call + 1
        site = self._sites.get((caller.key, producer, call))
        if site is None:
            if recomputed:
                return None
            site = self._sites[caller.key, producer, call] = self._open(caller, z, origin)
        axis = site.axis
        if origin is not None and origin.axis is not None and not site.given:
            axis = origin.axis  # of this call: channels before positions that come and go
        if z.ndim < -axis or z.shape[axis] != site.size:
            return None  # another width than at first: the units are not the same
        gate = caller.gate_of(self._eps) if site.gate is None else site.gate
        if not recomputed:
            again = site.forward == self.forwards
            site.forward = self.forwards
            self._busy = True  # what is computed here is no part of the model
            with outside_transforms(z, value):
                update(site.statistics, value.detach(), gate, axis, again=again)
                if self.on_call is not None:
                    self.on_call(caller, site.name, value.detach(), axis)
            self._busy = False
        back = partial(self._backward, site.statistics, axis)
        if self.gradients and z.requires_grad:
            watch_gradient(z, back)
        if origin is None or producer is None or self.per_call or site.gate is None or self.watching:
            return None
        if self.on_call is not None:
            return None
        short = counter(origin, site.statistics, z, axis, gate, back)
        return None if short is None else (site, short)

    def _open(self, caller: Caller, z: Tensor, origin: Origin | None) -> OpenSite:
        count = self._named.get(caller.name, 0)
        self._named[caller.name] = count + 1
        shown = f"{caller.name}#{count}" if count else caller.name
        axis = origin.axis if origin is not None and origin.axis is not None else guess_axis(z.ndim)
        if shown in self._axes:
            given = self._axes[shown]
            if not -z.ndim <= given < z.ndim:
                raise ValueError(
                    f"axis[{shown!r}]: expected an axis of a {z.ndim}-axis tensor, but got {given}"
                )
            axis = given - z.ndim if given >= 0 else given
        axis = max(axis, -z.ndim)
        size = z.shape[axis] if z.ndim else 1
        producer = origin.producer if origin is not None else None
        described = Site(
            name=shown,
            activation=caller.activation,
            size=size,
            axis=shown_axis(axis),
            producer=self._names.get(producer) if producer is not None else None,
        )
        self._gates[shown] = caller.gate_of
        gate = caller.gate_of(self._eps)
        learned = isinstance(gate.low, Tensor)
        statistics = self._sink.opened(len(self._sites), described, z.device, producer)
        return OpenSite(shown, statistics, size, axis, shown in self._axes, None if learned else gate)

    def _is_data(self, tensor: Tensor) -> bool:
        return self.lineage.get(tensor) is not None

    def _is_zero(self, tensor: Tensor) -> bool:
        return self._zeros.is_zero(tensor, self.functions.where)

    def _backward(self, statistics: UnitStatistics, axis: int, gradient: Tensor) -> None:
        value = plain(gradient)
        if value is not None:
            with outside_transforms(gradient, value):
                update_gradient(statistics, value.detach(), axis)


def _gate_of_call(name: str, arguments: Mapping[str, Any], eps: float) -> Gate:
    gate = functional.gate(name, arguments, eps)
    assert gate is not None
    return gate


def _running(module: nn.Module) -> int:
    """How many calls of the module are on the stack."""
    calls, frame = 0, sys._getframe()
    while frame is not None:
        calls += frame.f_code is nn.Module._call_impl.__code__ and frame.f_locals.get("self") is module
        frame = frame.f_back
    return calls
