"""The hooks that sit on a model's modules: before its activations and after its layers.

They run at every call, so they decide as little as they can: `Taps` knows what is observed and how.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import ref

from torch import Tensor, nn

from harness.activations.table import Gate
from harness.hooks.hook import Hook
from harness.hooks.sites import CHANNEL_AXIS, Origin, layer_axis
from harness.hooks.tensors import recomputing, watch_gradient
from harness.kernels.fast_path import Counter
from harness.kernels.statistics import UnitStatistics

if TYPE_CHECKING:
    from harness.hooks.taps import Taps

FEW = 64  # shapes of calls whose short way is kept


@dataclass(slots=True)
class OpenSite:
    """A site that has been seen."""

    name: str
    statistics: UnitStatistics
    size: int
    axis: int
    given: bool  # the axis was given by the user
    gate: Gate | None  # None: asked for at every call, since it is learned
    forward: int = 0  # number of the last forward in which it was called


class Caller(NamedTuple):
    """What is called at a site: a module, or (module, function) for a function called in its forward."""

    key: Any
    name: str
    activation: str
    gate_of: Callable[[float], Gate]


class Activation(Hook):
    """Before an activation module: counts its input, by the short way where one is known."""

    __slots__ = ("_caller", "_short", "_taps")

    def __init__(self, taps: Taps, caller: Caller) -> None:
        self._taps, self._caller = taps, caller
        self._short: dict[int, tuple[OpenSite, Counter]] = {}  # id of the origin → what it came to

    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        taps = self._taps
        recomputed = recomputing()  # also where a backward pass runs inside a forward
        if taps.active and args and not taps.watching and not recomputed:
            z = args[0]
            known = taps.lineage.known.get(id(z))
            if known is not None and known[0]() is z:
                short = self._short.get(id(known[1]))
                if short is not None:
                    site, counter = short
                    if counter.forward(z, site.forward == taps.forwards):
                        site.forward = taps.forwards
                        if taps.gradients and z.requires_grad:
                            watch_gradient(z, counter.backward)
                        return
        if taps.active or recomputed:
            self._long(module, args, kwargs, recomputed=recomputed)

    def _long(self, module: nn.Module, args: Any, kwargs: Any, *, recomputed: bool) -> None:
        z = args[0] if args else next(iter(kwargs.values()), None)
        if not isinstance(z, Tensor):
            return
        taps = self._taps
        if taps.watching:
            taps.functions.activating(module)
        taps.called.add(module)
        short = taps.observed(self._caller, z, recomputed)
        if short is not None:
            if len(self._short) >= FEW:
                self._short.clear()
            self._short[id(short[1].origin)] = short


class Layer(Hook):
    """After a layer: its output comes from it."""

    __slots__ = ("_origin", "_origins", "_taps")

    def __init__(self, taps: Taps, module: nn.Module) -> None:
        self._taps = taps
        # one object for each kind of output: the short ways know an origin by its identity
        fixed = not isinstance(module, CHANNEL_AXIS)
        self._origin = Origin(module, layer_axis(module, 4)) if fixed else None
        self._origins: dict[tuple[nn.Module | None, int], Origin] = {}

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        taps = self._taps
        if not taps.active and not recomputing():
            return
        if type(output) is Tensor or isinstance(output, Tensor):  # the second is slow
            origin = self._origin or self._of_norm(module, args, output)
            taps.lineage.known[id(output)] = ref(output), origin

    def _of_norm(self, module: nn.Module, args: Any, output: Tensor) -> Origin:
        producer: nn.Module | None = module
        if getattr(module, "weight", None) is None:  # a norm without parameters
            before = self._taps.lineage.get(args[0]) if args else None
            producer = None if before is None else before.producer
        key = producer, output.ndim
        if key not in self._origins:
            self._origins[key] = Origin(producer, layer_axis(module, output.ndim))
        return self._origins[key]
