"""The sites of a model: who calls an activation, on whose units, and what of it cannot be observed."""

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
    """Who owns the sums; sites are numbered from 0 in order of first call."""

    def register_site(
        self, index: int, site: Site, device: torch.device, producer: Producer | None
    ) -> UnitStatistics:
        """A new site; returns its running sums, into which every call of it is counted."""
        ...

    def replace_site(self, index: int, site: Site) -> None:
        """Of a site more is known: it has other producers, too, and none whose units are its own."""
        ...


class Caller(NamedTuple):
    """Who calls an activation.

    Attributes:
        key: the module, or (module, function) for a function called in its forward.
        name: of its sites.
        activation: canonical name.
        gate_of: ε → the gate, as it is now.
        compute: z → the activation's output, computed apart.
        spelling: "module" or "function".
        open_of: z → which gates are open, where a declaration tells it so; None where the gate does.
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
        site: as it is shown.
        statistics: its running sums.
        gate: None: asked for at every call, since it is learned or told by a mask.
        forward: number of the last forward in which it was called.
        constant: whether it was first called on a constant, as a cell may be on its initial state.
        without_graph: whether it was called without a graph in a forward that records one.
        layouts: number of axes → where the units lay in the last pre-activation with as many.
    """

    site: Site
    statistics: UnitStatistics
    gate: Gate | None
    forward: int = 0
    constant: bool = False
    without_graph: bool = False
    layouts: dict[int, UnitLayout] = field(default_factory=dict)


class SiteBook:
    """All that is known of a model's sites.

    Args:
        sink: owns the sums.
        gate_eps: a gate is open where |f'(z)| exceeds it.
        axis: site name → unit axis, overriding what is found.

    Attributes:
        uncounted: callers of which some calls are not counted, so that an unknown call is no surprise.
    """

    def __init__(self, sink: Sink, gate_eps: float, axis: Mapping[str, int] | None) -> None:
        self._sink, self._eps, self._axes = sink, gate_eps, dict(axis or {})
        self._sites: dict[Any, OpenSite] = {}  # a cell's under two keys, if its first time step differs
        self._opened: list[OpenSite] = []
        self._learned: dict[str, Callable[[float], Gate]] = {}
        self._names: dict[str, int] = {}  # of callers → sites so far
        self._hidden: dict[str, Site] = {}
        self._terms: dict[str, Site] = {}
        self.uncounted: set[Any] = set()

    @property
    def gates(self) -> dict[str, Gate]:
        """Site name → where its gate is open now; without those that z alone does not tell."""
        fixed = {o.site.name: o.gate for o in self._opened if o.gate is not None}
        return fixed | {name: gate_of(self._eps) for name, gate_of in self._learned.items()}

    @property
    def without_inputs(self) -> dict[str, Site]:
        """Sites by name that were called, but on no input, as an expert that nothing is routed to."""
        counts = ((o.site, o.statistics.n or o.statistics.observed) for o in self._opened)
        return {site.name: replace(site, reason=NO_INPUT) for site, counted in counts if not counted}

    @property
    def without_gradients(self) -> list[str]:
        """Sites that were called without a graph in this window, and to which no gradient came."""
        found = [o for o in self._opened if o.without_graph and o.statistics.n]
        return [opened.site.name for opened in found if not opened.statistics.grad_n]

    def unobserved(
        self,
        modules: Mapping[nn.Module, str],
        called: Collection[nn.Module],
        passed: Mapping[nn.Module, str],
    ) -> list[Site]:
        """Sites that are there but cannot be observed, or are not among the modules `called` so far."""
        hidden = [site for name, site in self._hidden.items() if name not in self._names]
        return unobservable(modules, hidden, called, passed)

    def plan(self, unobserved: Collection[Site]) -> Plan:
        """What is observed, as far as it is known."""
        sites = tuple(opened.site for opened in self._opened)
        return Plan(sites, tuple(self._terms.values()), (*unobserved, *self.without_inputs.values()))

    def site(
        self, caller: Caller, z: Tensor, made: Making, call: int, anew: Collection[Producer] | None
    ) -> tuple[OpenSite, UnitLayout]:
        """The site of a call, a new one where there is none yet, and where its units lie in z.

        Args:
            caller: of the activation.
            z: the pre-activation.
            made: how it was made.
            call: number of the call, where calls of one making are kept apart.
            anew: if z depends on an earlier call of this caller, the weights that were used since.

        Raises:
            WrongArgument: the axis that was given for it is none of z.
        """
        same = caller.key, frozenset(made.producers), made.exact, made.layout.rows, call
        key = (*same, made.layout.size)
        opened = self._sites.get(key)
        if opened is None:
            opened = self._cell(caller, z, made, call, anew) or self._open(caller, z, made, same)
            self._sites[key] = opened
        name = opened.site.name
        layout = self._given(name, z) if name in self._axes else made.layout
        opened.layouts[z.ndim] = layout
        return opened, layout

    def unique(
        self, caller: Caller, z: Tensor, found: Ancestry, model: nn.Module
    ) -> tuple[OpenSite | None, UnitLayout | None]:
        """The caller's only site, or that of the same producers: for recomputed calls, and parts compiled."""
        own = list({id(o): o for key, o in self._sites.items() if key[0] == caller.key}.values())
        if len(own) > 1:
            producers = Producers(model)
            names = {p.name for leaf in found.leaves if (p := producers.of(leaf.variable)) is not None}
            own = [opened for opened in own if set(opened.site.producers) == names]
        if len(own) != 1 or z.ndim not in own[0].layouts:
            return None, None
        layout = own[0].layouts[z.ndim]
        fits = units_in(z.shape, layout) == own[0].site.size
        return (own[0], layout) if fits else (None, None)

    def has(self, caller: Caller) -> bool:
        """Whether a caller has a site."""
        return caller.name in self._names

    def add_term(self, caller: Caller) -> None:
        """A call over something in which the units were summed away."""
        self.uncounted.add(caller.key)
        term = unobserved(caller.name, caller.activation, "its units were summed away")
        self._terms.setdefault(caller.name, term)

    def hide(self, caller: Caller, reason: str) -> bool:
        """A call that cannot be counted: a row of its own; False where the site has rows already."""
        self.uncounted.add(caller.key)
        self._hidden.setdefault(caller.name, unobserved(caller.name, caller.activation, reason))
        return caller.name not in self._names

    def lose(self, reason: str) -> None:
        """A forward that could not be followed: a row of its own for what was missed."""
        self._hidden.setdefault(":model", unobserved(":model", "unknown", reason))

    # --- inside -------------------------------------------------------------------------------------

    def _cell(
        self, caller: Caller, z: Tensor, made: Making, call: int, anew: Collection[Producer] | None
    ) -> OpenSite | None:
        """The site of a cell's first time step, of which this is a later one: its state has come in.

        A state adds weights of its own to those of the first step, which are used again for this one. What
        an earlier layer handed on, as in a residual stream, was not used again: that is another layer.
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
        if not name.endswith("]"):  # of another width: no name of its own
            self._names[caller.name] = self._names.get(caller.name, 0) + 1
        fixed = not isinstance(gate.low, Tensor) and caller.open_of is None and caller.lasts
        if isinstance(gate.low, Tensor) and caller.lasts:
            self._learned[name] = caller.gate_of
        self._opened.append(OpenSite(site, statistics, gate if fixed else None, constant=made.constant))
        return self._opened[-1]

    def _new_name(self, caller: Caller, same: tuple[Any, ...], size: int) -> str:
        """`name#1`, … for calls fed by other layers, `name[width]` for other widths of the same."""
        for key, opened in self._sites.items():
            if key[:-1] == same and "[" not in opened.site.name:
                return f"{opened.site.name}[{size}]"
        count = self._names.get(caller.name, 0)
        return f"{caller.name}#{count}" if count else caller.name

    def _given(self, name: str, z: Tensor) -> UnitLayout:
        """The layout that the user gave."""
        axis = self._axes[name]
        if not -z.ndim <= axis < z.ndim:
            raise WrongArgument(f"axis[{name!r}]: expected an axis of a {z.ndim}-axis tensor, but got {axis}")
        return UnitLayout((axis - z.ndim if axis >= 0 else axis,), z.shape[axis])
