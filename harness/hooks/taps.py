"""Taps: how a forward and backward pass is observed, attached and detached without a trace.

Module hooks see activation modules and the layers that feed them. A function mode sees activations that are
called as functions; it is entered only for models that need it, which trial forwards (the 1st, 2nd, 4th, …)
tell. Everything works on detached tensors, keeps none alive, and never asks the device for a value.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from harness.hooks import functional
from harness.hooks.activations import Gate, lookup
from harness.hooks.functional import calls_functions
from harness.hooks.hook import Hook
from harness.hooks.lineage import Lineage
from harness.hooks.sites import (
    CHANNEL_AXIS,
    FUSED,
    TRANSPARENT,
    Origin,
    Site,
    guess_axis,
    layer_axis,
    qualified_names,
    shown_axis,
)
from harness.hooks.tensors import outside_transforms, plain, recomputing


class Sink(Protocol):
    """Who receives what the taps see; sites are numbered from 0 in order of first call."""

    def opened(self, index: int, site: Site, device: torch.device, producer: nn.Module | None) -> None:
        """A new site."""

    def forward(self, index: int, z: Tensor, axis: int, gate: Gate, again: bool) -> None:
        """Pre-activations, detached, units on `axis` (from the end); `again`: repeated in one forward."""

    def backward(self, index: int, gradient: Tensor, axis: int) -> None:
        """∂L/∂z likewise."""


@dataclass(slots=True)
class _Open:
    """A site that has been seen."""

    index: int
    size: int
    axis: int
    given: bool  # the axis was given by the user
    gate: Gate | None = None  # None: asked for at every call, since it is learned


class _Caller(NamedTuple):
    """What is called at a site: a module, or (module, function) for a function called in its forward."""

    key: Any
    name: str
    activation: str
    gate_of: Callable[[float], Gate]


class _Mode(TorchFunctionMode):
    """Shows every torch function of a forward to the taps."""

    def __init__(self, taps: Taps) -> None:
        super().__init__()
        self._taps = taps

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        return self._taps._function(func, args, kwargs)


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
        self._gradients, self._per_call, self._axes = gradients, per_call, dict(axis or {})
        self._names = qualified_names(model)
        self._lineage = Lineage({id(p): m for m in model.modules() for p in m.parameters(recurse=False)})
        self._handles: list[RemovableHandle] = []
        self._stack_handles: list[RemovableHandle] = []
        self._sites: dict[tuple[Any, ...], _Open] = {}
        self._calls: dict[Any, int] = {}
        self._named: dict[str, int] = {}
        self._hidden: dict[str, Site] = {}
        self._busy = False
        self._stance = ExitStack()
        self._stack: list[nn.Module] = []
        self._inside: list[nn.Module] = []  # activation modules being called
        self._depth = 0
        self._forwards = 0
        self._active = False
        self._mode: _Mode | None = None
        self._paused = False
        self._called_now: set[int] = set()  # sites, in the forward that runs
        self.needs_functions = calls_functions(model)
        self.called: set[nn.Module] = set()

    # --- attach and detach ----------------------------------------------------------------------

    def attach(self) -> None:
        """Register the hooks; until `detach`, compiled models run eagerly, since compiled code has none."""
        self._stance.enter_context(torch.compiler.set_stance("force_eager"))
        keep = self._handles.append
        keep(self._model.register_forward_pre_hook(Hook(self._enter), with_kwargs=True))
        for module, name in self._names.items():
            if isinstance(module, torch.jit.ScriptModule):
                continue  # takes no hooks
            known = lookup(module)
            if known is not None:
                activation, gate_of = known
                call = _Caller(module, name or f":{activation}", activation, partial(gate_of, module))
                hook = Hook(partial(self._activation, call))
                keep(module.register_forward_pre_hook(hook, with_kwargs=True))
            elif layer_axis(module, 4) is not None:
                keep(module.register_forward_hook(Hook(self._layer)))
            elif isinstance(module, TRANSPARENT):
                keep(module.register_forward_hook(Hook(self._transparent)))
        keep(self._model.register_forward_hook(Hook(self._leave), always_call=True))

    def detach(self) -> None:
        """Remove every hook; nothing of ours stays in the model."""
        for handle in [*self._handles, *self._stack_handles]:
            handle.remove()
        self._handles.clear()
        self._stack_handles.clear()
        self._lineage.clear()
        self._stance.close()
        self._depth, self._active, self._busy = 0, False, False  # also after an interrupt inside a forward,
        if self._mode is not None:  # for which torch calls no hook
            self._mode.__exit__(None, None, None)
            self._mode = None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Forwards in the block are not ours."""
        self._paused = True
        try:
            yield
        finally:
            self._paused = False

    def unseen(self, called: Collection[nn.Module]) -> list[Site]:
        """Sites that are there but cannot be observed, or are not among the modules `called` so far."""
        fused = "its units live inside a fused kernel"
        found = list(self._hidden.values())
        for module, name in self._names.items():
            known = lookup(module)
            if isinstance(module, FUSED):
                found.append(Site(name, type(module).__name__.lower(), -1, None, None, fused))
            elif isinstance(module, torch.jit.ScriptModule):
                if not any(name.startswith(f"{s.name}.") or s.name == "" for s in found if s.reason):
                    reason = "a scripted module runs outside Python"
                    found.append(Site(name, "scripted", -1, None, None, reason))
            elif known is not None and module not in called:
                found.append(Site(name or known[0], known[0], -1, None, None, "it was never called"))
        return found

    # --- the root's forward ---------------------------------------------------------------------

    def _enter(self, module: nn.Module, args: Any, kwargs: Mapping[str, Any]) -> None:
        self._depth += 1
        if self._depth > 1:
            return
        training = module.training
        wanted = self._observe == "all" or training == (self._observe == "train")
        self._active = wanted and not self._paused
        if not self._active:
            return
        self._forwards += 1
        self._calls.clear()
        self._called_now.clear()
        self._lineage.clear()
        for value in (*args, *kwargs.values()):
            if isinstance(value, Tensor):
                self._lineage.put(value, Origin(None, None))
        if self.needs_functions or self._forwards & (self._forwards - 1) == 0:
            self._watch_functions()

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        self._depth -= 1
        if self._depth > 0:
            return
        self._active = False
        self._inside.clear()
        self._lineage.clear()
        if self._mode is not None:
            self._mode.__exit__(None, None, None)
            self._mode = None
            if not self.needs_functions:
                for handle in self._stack_handles:
                    handle.remove()
                self._stack_handles.clear()

    def _watch_functions(self) -> None:
        if not self._stack_handles:
            for module in self._names:
                if isinstance(module, torch.jit.ScriptModule):
                    continue
                if lookup(module) is not None:
                    self._stack_handles.append(module.register_forward_hook(Hook(self._activated)))
                if module is not self._model:
                    push, pop = Hook(self._push), Hook(self._pop)
                    self._stack_handles.append(module.register_forward_pre_hook(push))
                    self._stack_handles.append(module.register_forward_hook(pop, always_call=True))
        self._stack[:] = [self._model]
        self._mode = _Mode(self)
        self._mode.__enter__()

    def _push(self, module: nn.Module, args: Any) -> None:
        self._stack.append(module)

    def _pop(self, module: nn.Module, args: Any, output: Any) -> None:
        if len(self._stack) > 1:
            self._stack.pop()

    # --- layers ---------------------------------------------------------------------------------

    def _layer(self, module: nn.Module, args: Any, output: Any) -> None:
        if (self._active or recomputing()) and isinstance(output, Tensor):
            producer: nn.Module | None = module
            if isinstance(module, CHANNEL_AXIS) and getattr(module, "weight", None) is None:
                before = self._lineage.get(args[0]) if args else None
                producer = None if before is None else before.producer  # a norm without parameters
            self._lineage.put(output, Origin(producer, layer_axis(module, output.ndim)))

    def _transparent(self, module: nn.Module, args: Any, output: Any) -> None:
        if (self._active or recomputing()) and args and isinstance(output, Tensor):
            origin = self._lineage.get(args[0])
            if origin is not None and output.ndim == args[0].ndim:
                self._lineage.put(output, origin)

    # --- activations ----------------------------------------------------------------------------

    def _activation(self, caller: _Caller, module: nn.Module, args: Any, kwargs: Any) -> None:
        recomputed = not self._active
        if recomputed and not recomputing():
            return
        z = args[0] if args else next(iter(kwargs.values()), None)
        if not isinstance(z, Tensor):
            return
        if self._mode is not None:
            self._inside.append(module)
        self.called.add(module)
        self._observed(caller, z, recomputed)

    def _activated(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._inside:
            self._inside.pop()
        if self._active and args and isinstance(output, Tensor) and output is not args[0]:
            origin = self._lineage.get(args[0])
            if origin is not None and output.shape == args[0].shape:
                self._lineage.put(output, Origin(origin.producer, origin.axis, direct=False))

    def _function(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Called by the mode for every torch function of a watched forward."""
        if self._busy:
            return func(*args, **kwargs)
        if self._active and not self._inside:
            found = functional.bound(func, args, kwargs, self._is_data)
            if found is not None:
                name, z, arguments = found
                if functional.gate(name, arguments, self._eps) is not None:
                    self.needs_functions = True
                    where, shown = self._stack[-1], functional.shown(name)
                    gate_of = partial(_gate_of_call, name, arguments)
                    caller = _Caller((where, shown), f"{self._names[where]}:{shown}", shown, gate_of)
                    self._observed(caller, z, recomputing())
        out = func(*args, **kwargs)
        if self._active:
            self._lineage.follow(getattr(func, "__name__", ""), args, kwargs, out)
        return out

    def _observed(self, caller: _Caller, z: Tensor, recomputed: bool) -> None:
        """One call of an activation, about to happen on z."""
        value = plain(z)
        if value is None:
            reason = "it was called under vmap or without values (a trace)"
            self._hidden[caller.name] = Site(caller.name, caller.activation, -1, None, None, reason)
            return
        origin = self._lineage.get(z)
        producer = None
        if origin is not None:
            producer = origin.producer
            if not origin.direct and self._mode is not None:
                self.needs_functions = True
        call = 0
        if producer is None or self._per_call:
            call = self._calls.get(caller.key, 0)
            self._calls[caller.key] = call + 1
        site = self._sites.get((caller.key, producer, call))
        if site is None:
            if recomputed:
                return
            site = self._sites[caller.key, producer, call] = self._open(caller, z, origin)
        axis = site.axis
        if origin is not None and origin.axis is not None and not site.given:
            axis = origin.axis  # of this call: channels before positions that come and go
        if z.ndim < -axis or z.shape[axis] != site.size:
            return  # another width than at first: the units are not the same
        if not recomputed:
            index = site.index
            again = index in self._called_now
            self._called_now.add(index)
            gate = site.gate
            if gate is None:
                gate = caller.gate_of(self._eps)
            self._busy = True  # what the sink computes is no part of the model
            with outside_transforms(z, value):
                self._sink.forward(index, value.detach(), axis, gate, again)
            self._busy = False
        if self._gradients and z.requires_grad:
            z.register_hook(partial(self._gradient, site.index, axis))

    def _open(self, caller: _Caller, z: Tensor, origin: Origin | None) -> _Open:
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
        gate = caller.gate_of(self._eps)
        site = _Open(
            index=len(self._sites),
            size=z.shape[axis] if z.ndim else 1,
            axis=axis,
            given=shown in self._axes,
            gate=None if isinstance(gate.low, Tensor) else gate,
        )
        producer = origin.producer if origin is not None else None
        described = Site(
            name=shown,
            activation=caller.activation,
            size=site.size,
            axis=shown_axis(axis),
            producer=self._names.get(producer) if producer is not None else None,
        )
        self._sink.opened(site.index, described, z.device, producer)
        return site

    def _is_data(self, tensor: Tensor) -> bool:
        return self._lineage.get(tensor) is not None

    def _gradient(self, index: int, axis: int, gradient: Tensor) -> None:
        value = plain(gradient)
        if value is not None:
            with outside_transforms(gradient, value):
                self._sink.backward(index, value.detach(), axis)


def _gate_of_call(name: str, arguments: Mapping[str, Any], eps: float) -> Gate:
    gate = functional.gate(name, arguments, eps)
    assert gate is not None
    return gate
