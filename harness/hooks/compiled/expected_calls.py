"""Calls seen in the traced forwards of a model, which tell compiled code what to count."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from harness.activations.lookup import TABLE
from harness.graph.tensor_map import TensorMap
from harness.graph.units import UnitLayout
from harness.hooks.sites import OpenSite
from harness.kernels.countable import PLAIN

SETTLED = 3  # traced forwards after which a cell's time steps are one site


@dataclass
class SeenCall:
    """A call that was counted.

    Attributes:
        opened: its site.
        layout: layout of its units.
        ndim: number of axes of the pre-activation.
        plain: whether the pre-activation is a plain tensor, not a subclass.
        shared: whether the pre-activation is used a second time.
    """

    opened: OpenSite
    layout: UnitLayout
    ndim: int
    plain: bool
    shared: bool = False

    def like(self, other: SeenCall) -> bool:
        """Whether another call is counted in the same way."""
        return self.opened is other.opened and (self.layout, self.ndim) == (other.layout, other.ndim)


@dataclass(frozen=True)
class SeenFunction:
    """A function called that is an activation, or could have been one.

    Attributes:
        function: as a function mode sees it.
        place: position or keyword of the pre-activation among the arguments.
        in_place: whether it wrote into the pre-activation.
        key: key of its caller; None if it was not an activation.
    """

    function: Any
    place: int | str = 0
    in_place: bool = False
    key: Any = None


@dataclass
class SeenForward:
    """The calls of one forward.

    Attributes:
        calls: caller → its calls in order, None for those that were not counted.
        functions: owner → the functions it called, for each of its own forwards.
        in_place: activation modules that wrote into their pre-activations.
    """

    calls: dict[Any, list[SeenCall | None]] = field(default_factory=dict)
    functions: dict[nn.Module, list[list[SeenFunction]]] = field(default_factory=dict)
    in_place: set[nn.Module] = field(default_factory=set)
    _used: TensorMap[bool] = field(default_factory=TensorMap)
    _pre_activations: TensorMap[SeenCall] = field(default_factory=TensorMap)

    def add(self, key: Any, z: Tensor, found: tuple[OpenSite, UnitLayout] | None) -> None:
        """Record the call of an activation."""
        seen = None if found is None else SeenCall(*found, z.ndim, type(z) in PLAIN)
        self.calls.setdefault(key, []).append(seen)
        if seen is not None:
            seen.shared = bool(self._used.get(z))
            self._used.put(z, True)
            self._pre_activations.put(z, seen)

    def write(self, z: Tensor) -> None:
        """Record that an activation wrote into z: later uses of z are uses of the activation's output."""
        self._pre_activations.discard(z)

    def use(self, *values: Any) -> None:
        """Record that something else is computed from these values."""
        for value in values:
            if isinstance(value, Tensor):
                known = self._pre_activations.get(value)
                if known is not None:
                    known.shared = True
                self._used.put(value, True)
            elif isinstance(value, tuple | list):
                self.use(*value)

    def enter(self, owner: nn.Module) -> None:
        """Record that a module's forward begins."""
        if owner in self.functions:
            self.functions[owner].append([])

    def call(
        self, owner: nn.Module, function: Any, args: Any, kwargs: Any, z: Any, key: Any, out: Any
    ) -> None:
        """Record a function call of a module; z is None if it is not an activation."""
        if z is None and isinstance(out, Tensor) and out.requires_grad:
            self.use(*(value for value in (*args, *kwargs.values()) if value is not out))
        if function not in TABLE:
            return
        runs = self.functions.setdefault(owner, [[]])
        if z is None:
            runs[-1].append(SeenFunction(function))
            return
        places = [place for place, value in [*enumerate(args), *kwargs.items()] if value is z]
        in_place = out is z
        if in_place:
            self.write(z)
        runs[-1].append(SeenFunction(function, places[0] if places else -1, in_place, key))


class ExpectedCalls:
    """The calls of the traced forwards so far.

    Attributes:
        calls: caller → its calls in the last forward that had any.
        functions: owner → the functions it calls in one forward of its own.
        in_place: activation modules that write into their pre-activations.
        changing: callers and owners whose calls differ between forwards.
    """

    def __init__(self) -> None:
        self.calls: dict[Any, list[SeenCall | None]] = {}
        self.functions: dict[nn.Module, list[SeenFunction]] = {}
        self.in_place: set[nn.Module] = set()
        self.changing: set[Any] = set()
        self._forwards = 0

    def all_seen_in(self, forward: int) -> bool:
        """Whether a forward certainly counted all the expected calls: each has a site of its own."""
        opened = [None if call is None else call.opened for calls in self.calls.values() for call in calls]
        sites = {id(one) for one in opened}
        return len(sites) == len(opened) and all(one and one.forward == forward for one in opened)

    def add(self, seen: SeenForward) -> None:
        """Merge the calls of a traced forward."""
        self._forwards += 1
        self.in_place |= seen.in_place
        for key, calls in seen.calls.items():
            before = self.calls.get(key, calls)
            differ = _sites(before) != _sites(calls) and len({*_sites(before), *_sites(calls)}) > 1
            if differ and self._forwards > SETTLED:
                self.changing.add(key)
            self.calls[key] = calls
        for owner, runs in seen.functions.items():
            runs = [run for run in runs if run]
            if not runs:
                continue
            before = self.functions.get(owner, runs[0])
            if any(run != before for run in runs):
                self.changing.add(owner)
            self.functions[owner] = runs[-1]


def _sites(calls: list[SeenCall | None]) -> list[int]:
    return [0 if call is None else id(call.opened) for call in calls]
