"""What the traced forwards of a model called: by that, compiled code counts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from weakref import ref

from torch import Tensor, nn

from harness.activations.lookup import TABLE
from harness.graph.units import UnitLayout
from harness.hooks.sites import OpenSite
from harness.kernels.countable import PLAIN

SETTLED = 3  # traced forwards after which the sites of a cell have found together


@dataclass
class SeenCall:
    """A call that was counted.

    Attributes:
        opened: its site.
        layout: of the units.
        ndim: axes of the pre-activation.
        plain: whether the pre-activation is a tensor of torch's own kind.
        shared: whether the pre-activation is used a second time.
    """

    opened: OpenSite
    layout: UnitLayout
    ndim: int
    plain: bool
    shared: bool = False

    def like(self, other: SeenCall) -> bool:
        """Whether another call counts alike."""
        return self.opened is other.opened and (self.layout, self.ndim) == (other.layout, other.ndim)


@dataclass(frozen=True)
class SeenFunction:
    """An activation that was called as a function, or could have been one.

    Attributes:
        function: as a function mode sees it.
        place: of the pre-activation among the arguments, or its keyword.
        in_place: whether it wrote into the pre-activation.
        key: of its caller; None: it was no activation.
    """

    function: Any
    place: int | str = 0
    in_place: bool = False
    key: Any = None


@dataclass
class SeenForward:
    """The calls of one forward.

    Attributes:
        calls: caller → its calls in order, None where one was not counted.
        functions: owner → what it called, for each of its own forwards.
        in_place: activation modules that wrote into their pre-activations.
    """

    calls: dict[Any, list[SeenCall | None]] = field(default_factory=dict)
    functions: dict[nn.Module, list[list[SeenFunction]]] = field(default_factory=dict)
    in_place: set[nn.Module] = field(default_factory=set)
    _uses: dict[int, ref[Tensor]] = field(default_factory=dict)
    _pre_activations: dict[int, tuple[ref[Tensor], SeenCall]] = field(default_factory=dict)

    def add(self, key: Any, z: Tensor, found: tuple[OpenSite, UnitLayout] | None) -> None:
        """An activation was called."""
        seen = None if found is None else SeenCall(*found, z.ndim, type(z) in PLAIN)
        self.calls.setdefault(key, []).append(seen)
        if seen is not None:
            used = self._uses.get(id(z))
            seen.shared = used is not None and used() is z
            self._uses[id(z)] = ref(z)
            self._pre_activations[id(z)] = ref(z), seen

    def write(self, z: Tensor) -> None:
        """An activation has written into z: what is computed from it now comes through the activation."""
        self._pre_activations.pop(id(z), None)

    def use(self, *values: Any) -> None:
        """Something else is computed from these."""
        for value in values:
            if isinstance(value, Tensor):
                known = self._pre_activations.get(id(value))
                if known is not None and known[0]() is value:
                    known[1].shared = True
                self._uses[id(value)] = ref(value)
            elif isinstance(value, tuple | list):
                self.use(*value)

    def enter(self, owner: nn.Module) -> None:
        """A forward of a module begins."""
        if owner in self.functions:
            self.functions[owner].append([])

    def call(
        self, owner: nn.Module, function: Any, args: Any, kwargs: Any, z: Any, key: Any, out: Any
    ) -> None:
        """A module called a function, which may be an activation: then z is not None."""
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
        functions: owner → what it calls in one forward of its own.
        in_place: activation modules that write into their pre-activations.
        changing: callers and owners whose calls differ from one forward to the next.
    """

    def __init__(self) -> None:
        self.calls: dict[Any, list[SeenCall | None]] = {}
        self.functions: dict[nn.Module, list[SeenFunction]] = {}
        self.in_place: set[nn.Module] = set()
        self.changing: set[Any] = set()
        self._forwards = 0

    def add(self, seen: SeenForward) -> None:
        """A traced forward is over."""
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
