"""The sites of a model: who calls an activation, on which units, and what cannot be observed of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from harness.activations.gates import Gate
from harness.graph.autograd import Ancestry
from harness.graph.making import Making
from harness.graph.plan import Plan, Site, shown_axes
from harness.graph.producers import Producer, Producers
from harness.graph.units import UnitLayout, units_in
from harness.hooks.arguments import WrongArgument
from harness.hooks.unobservable import NO_INPUT, NotObservable, unobservable, unobserved
from harness.kernels.statistics import UnitStatistics


class Sink(Protocol):
    """Owner of the sums; sites are numbered from 0 in the order of their first calls."""

    def register_site(
        self, index: int, site: Site, device: torch.device, producer: Producer | None
    ) -> UnitStatistics:
        """Register a new site; returns its running sums, into which all its calls are counted."""
        ...

    def replace_site(self, index: int, site: Site) -> None:
        """Update a site: it has further producers, and no producer whose units are exactly its own."""
        ...


class Caller(NamedTuple):
    """The caller of an activation.

    Attributes:
        key: the module, or (module, function) for a function called in its forward.
        name: base name of its sites.
        activation: canonical name.
        gate_of: ε → the current gate.
        compute: z → the activation's output, computed separately.
        spelling: "module" or "function".
        open_of: z → which gates are open, where a declaration computes it; None where the gate decides.
        lasts: whether later calls of the site have the same `gate_of`.
    """

    key: Any
    name: str
    activation: str
    gate_of: Callable[[float], Gate]
    compute: Callable[[Tensor], Any]
    spelling: str = "module"
    open_of: Callable[[Tensor], Tensor] | None = None
    lasts: bool = True


@dataclass(slots=True)
class OpenSite:
    """A site that has been seen.

    Attributes:
        site: its description.
        statistics: its running sums.
        gate: None if it is evaluated at every call, since it is learned or given by a declaration.
        forward: number of the last forward in which it was called.
        constant: whether it was first called on a constant, as a cell may be on its initial state.
        without_graph: whether it was called without a graph in a forward that records one.
        layouts: number of axes → unit layout of the last pre-activation with as many.
        way: path from the layer to it, and which one of several with the same path.
    """

    site: Site
    statistics: UnitStatistics
    gate: Gate | None
    forward: int = 0
    constant: bool = False
    without_graph: bool = False
    layouts: dict[int, UnitLayout] = field(default_factory=dict)
    way: Any = None


class SiteBook:
    """Everything known about a model's sites.

    Args:
        sink: owns the sums.
        gate_eps: a gate is open where |f'(z)| exceeds it.
        axis: site name → unit axis, overriding the detected one.

    Attributes:
        uncounted: callers with uncounted calls, for which an unknown call is expected.
    """

    def __init__(self, sink: Sink, gate_eps: float, axis: Mapping[str, int] | None) -> None:
        self._sink, self._eps, self._axes = sink, gate_eps, dict(axis or {})
        self._sites: dict[Any, OpenSite] = {}  # a cell has two keys if its first time step differs
        self._forks: dict[Any, dict[Any, OpenSite]] = {}  # gates behind the layer of a site, by their ways
        self._opened: list[OpenSite] = []
        self._learned: dict[str, Callable[[float], Gate]] = {}
        self._names: dict[str, int] = {}  # caller name → number of its sites so far
        self._hidden: dict[str, Site] = {}
        self._terms: dict[str, Site] = {}
        self.uncounted: set[Any] = set()

    @property
    def gates(self) -> dict[str, Gate]:
        """Site name → its current gate; without sites whose gates z alone does not determine."""
        fixed = {o.site.name: o.gate for o in self._opened if o.gate is not None}
        return fixed | {name: gate_of(self._eps) for name, gate_of in self._learned.items()}

    @property
    def without_inputs(self) -> dict[str, Site]:
        """Sites by name that were called only on empty inputs, such as an expert that gets no tokens."""
        counts = ((o.site, o.statistics.n or o.statistics.observed) for o in self._opened)
        return {site.name: replace(site, reason=NO_INPUT) for site, counted in counts if not counted}

    @property
    def without_gradients(self) -> list[str]:
        """Sites that were called without a graph in this window and received no gradient."""
        found = [o for o in self._opened if o.without_graph and o.statistics.n]
        return [opened.site.name for opened in found if not opened.statistics.grad_n]

    def unobserved(
        self,
        modules: Mapping[nn.Module, str],
        called: Collection[nn.Module],
        passed: Mapping[nn.Module, str],
    ) -> list[Site]:
        """Sites that exist but cannot be observed, or are not among the modules `called` so far."""
        hidden = [site for name, site in self._hidden.items() if name not in self._names]
        return unobservable(modules, hidden, called, passed)

    def plan(self, unobserved: Collection[Site]) -> Plan:
        """The sites known so far, observed and unobserved."""
        sites = tuple(opened.site for opened in self._opened)
        return Plan(sites, tuple(self._terms.values()), (*unobserved, *self.without_inputs.values()))

    def site(
        self,
        caller: Caller,
        z: Tensor,
        made: Making,
        call: int,
        anew: Collection[Producer] | None,
        way: tuple[Any, int, bool] | None = None,
    ) -> tuple[OpenSite, UnitLayout]:
        """The site of a call, created if necessary, and its unit layout in z.

        Args:
            caller: caller of the activation.
            z: the pre-activation.
            made: how it was made.
            call: number of the call, if calls with the same making are kept apart.
            anew: if z depends on an earlier call of this caller, the weights that were used since.
            way: functions between the layer and z, which of several with the same functions it is, and
                whether the layer is behind several gates in this forward.

        Raises:
            WrongArgument: the axis given for the site does not exist in z.
        """
        same = caller.key, frozenset(made.producers), made.exact, made.layout.rows, call
        key = (*same, made.layout.size)
        opened = self._sites.get(key)
        if opened is None:
            opened = self._cell(caller, z, made, call, anew) or self._open(caller, z, made, same)
            self._sites[key] = opened
            opened.way = opened.way or (way and way[:2])
        elif way is not None and opened.way != way[:2] and (way[2] or key in self._forks):
            forks = self._forks.setdefault(key, {})
            if way[:2] not in forks:
                forks[way[:2]] = self._open(caller, z, made, (*same, way[:2]))
            opened = forks[way[:2]]
        name = opened.site.name
        layout = self._given(name, z) if name in self._axes else made.layout
        opened.layouts[z.ndim] = layout
        return opened, layout

    def unique(
        self, caller: Caller, z: Tensor, found: Ancestry, model: nn.Module
    ) -> tuple[OpenSite | None, UnitLayout | None]:
        """The caller's only site, or the one with the same producers; for recomputed and compiled calls."""
        every = list(self._sites.items())
        every += [(key, opened) for key, forks in self._forks.items() for opened in forks.values()]
        own = list({id(o): o for key, o in every if key[0] == caller.key}.values())
        if len(own) > 1:
            producers = Producers(model)
            names = {p.name for leaf in found.leaves if (p := producers.of(leaf.variable)) is not None}
            own = [opened for opened in own if set(opened.site.producers) == names]
        if len(own) != 1 or z.ndim not in own[0].layouts:
            return None, None
        layout = own[0].layouts[z.ndim]
        fits = units_in(z.shape, layout) == own[0].site.size
        return (own[0], layout) if fits else (None, None)

    def is_given(self, caller: Caller) -> bool:
        """Whether the user chose the unit axis of a caller's first site."""
        return caller.name in self._axes

    def has(self, caller: Caller) -> bool:
        """Whether a caller has a site."""
        return caller.name in self._names

    def add_term(self, caller: Caller) -> None:
        """Record a call on something whose units were summed away."""
        self.uncounted.add(caller.key)
        term = unobserved(caller.name, caller.activation, "its units were summed away")
        self._terms.setdefault(caller.name, term)

    def hide(self, caller: Caller, reason: str) -> bool:
        """Record an uncountable call as a row of its own; False if the site already has rows."""
        self.uncounted.add(caller.key)
        self._hidden.setdefault(caller.name, unobserved(caller.name, caller.activation, reason))
        return caller.name not in self._names

    def lose(self, reason: str) -> None:
        """Record a forward that could not be followed as a row of its own."""
        self._hidden.setdefault(":model", unobserved(":model", "unknown", reason))

    # --- inside -------------------------------------------------------------------------------------

    def _cell(
        self, caller: Caller, z: Tensor, made: Making, call: int, anew: Collection[Producer] | None
    ) -> OpenSite | None:
        """The site of a cell's first time step, if this is a later one, to which a state has been added.

        A state adds its own weights to those of the first step, which are used again for this one. If those
        were not used again, as in a residual stream, the call belongs to another layer.
        """
        if anew is None:
            return None
        reused = frozenset(made.producers) & frozenset(anew)
        for (key, first, _, rows, number, size), opened in self._sites.items():
            same_units = (key, rows, number, size) == (caller.key, made.layout.rows, call, made.layout.size)
            if same_units and (first <= reused if first else opened.constant):
                names = (*opened.site.producers, *(p.name for p in made.producers))
                opened.site = replace(
                    opened.site,
                    axes=shown_axes(made.layout.axes, z.ndim),
                    producers=tuple(dict.fromkeys(names)),
                    guessed=made.guessed and opened.site.guessed,
                    exact=False,
                )
                self._sink.replace_site(self._opened.index(opened), opened.site)
                return opened
        return None

    def _open(self, caller: Caller, z: Tensor, made: Making, same: tuple[Any, ...]) -> OpenSite:
        gate = caller.gate_of(self._eps)
        name = self._new_name(caller, same, made.layout.size)
        layout = self._given(name, z) if name in self._axes else made.layout
        if isinstance(gate.low, Tensor) and gate.low.numel() not in (1, layout.size):
            raise NotObservable(f"{gate.low.numel()} thresholds for {layout.size} units")
        site = Site(
            name=name,
            activation=caller.activation,
            size=layout.size,
            axes=shown_axes(layout.axes, z.ndim),
            producers=tuple(dict.fromkeys(p.name for p in made.producers)),
            spelling=caller.spelling,
            guessed=made.guessed and name not in self._axes,
            exact=made.exact,
        )
        single = made.producers[0] if len(made.producers) == 1 and made.exact else None
        statistics = self._sink.register_site(len(self._opened), site, z.device, single)
        if not name.endswith("]"):  # other widths of a site do not take a name
            self._names[caller.name] = self._names.get(caller.name, 0) + 1
        fixed = not isinstance(gate.low, Tensor) and caller.open_of is None and caller.lasts
        if isinstance(gate.low, Tensor) and caller.lasts:
            self._learned[name] = caller.gate_of
        self._opened.append(OpenSite(site, statistics, gate if fixed else None, constant=made.constant))
        return self._opened[-1]

    def _new_name(self, caller: Caller, same: tuple[Any, ...], size: int) -> str:
        """`name#1`, … for calls with other producers, `name[width]` for other widths of the same ones."""
        for key, opened in self._sites.items():
            if key[:-1] == same and "[" not in opened.site.name:
                return f"{opened.site.name}[{size}]"
        count, taken = self._names.get(caller.name, 0), {opened.site.name for opened in self._opened}
        name = f"{caller.name}#{count}" if count else caller.name
        while name in taken:  # a module may be called `act#1`
            count += 1
            name = f"{caller.name}#{count}"
        return name

    def _given(self, name: str, z: Tensor) -> UnitLayout:
        """The layout for the unit axis that the user gave."""
        axis = self._axes[name]
        if not -z.ndim <= axis < z.ndim:
            raise WrongArgument(f"axis[{name!r}]: expected an axis of a {z.ndim}-axis tensor, but got {axis}")
        return UnitLayout((axis - z.ndim if axis >= 0 else axis,), z.shape[axis])
