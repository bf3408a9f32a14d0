"""Wiring: for every site of a model, the layer that makes its units and the layers that read them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from harness.activations.table import lookup
from harness.hooks.batches import Batch, call, device_of
from harness.hooks.sites import Site, qualified_names
from harness.hooks.taps import Taps
from harness.kernels.statistics import UnitStatistics, empty
from harness.remedies.aside import aside
from harness.remedies.marks import axis_of
from harness.remedies.tracing import Outlet, Path, Seen, Tracer


class Junction(NamedTuple):
    """What stands around the units of one site.

    Attributes:
        site: name of the site.
        names: qualified names of the layer, the norm ("" if there is none) and the outlets.
        layer: whose rows make the units: a Linear or a convolution.
        norm: between layer and activation, None if there is none.
        outlets: the layers that read the units.
    """

    site: str
    names: tuple[str, str, tuple[str, ...]]
    layer: nn.Module
    norm: nn.Module | None
    outlets: tuple[Outlet, ...]

    @property
    def size(self) -> int:
        """Units."""
        return len(parameter(self.layer, "weight"))

    def of(self, model: nn.Module) -> Junction:
        """The same place in another model of the same making."""
        layer, norm, outlets = self.names
        modules = by_name(model)
        found = [modules[name] for name in outlets]
        return self._replace(
            layer=modules[layer],
            norm=modules[norm] if norm else None,
            outlets=tuple(
                outlet._replace(layer=one) for outlet, one in zip(self.outlets, found, strict=True)
            ),
        )


class Wiring(NamedTuple):
    """What one forward pass tells.

    Attributes:
        junctions: the sites whose units can be replaced one by one.
        refused: site → why not, for the others.
        magnitudes: site → (units,) float64, the sum of |activation| over the batch.
        inputs: site → numbers summed for each unit (batch × positions).
    """

    junctions: tuple[Junction, ...]
    refused: Mapping[str, str]
    magnitudes: Mapping[str, Tensor]
    inputs: Mapping[str, int]


class _Openings:
    """Sink of the taps: remembers the site that has just been opened."""

    def __init__(self) -> None:
        self.site: Site | None = None

    def opened(
        self, index: int, site: Site, device: torch.device, producer: nn.Module | None
    ) -> UnitStatistics:
        self.site = site
        return empty(max(site.size, 0), device)

    def take(self) -> Site | None:
        site, self.site = self.site, None
        return site


def wire(model: nn.Module, batch: Batch) -> Wiring:
    """Follow one forward pass, in the model's present mode; nothing in the model changes.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1))
        >>> wiring = wire(model, torch.ones(2, 4))
        >>> [(j.site, *j.names) for j in wiring.junctions]
        [('1', '0', '', ('2',))]
    """
    magnitudes: dict[Path, tuple[Tensor, int]] = {}

    def measure(path: Path, a: Tensor, marks: Tensor) -> None:
        found = axis_of(marks)
        if found is None:
            return
        axis, columns = found
        columnwise = a.abs().double().movedim(axis, -1).reshape(-1, len(columns)).sum(0)
        units = int(columns.max()) + 1
        sums = columnwise.new_zeros(units).index_add_(0, columns, columnwise)
        magnitudes[path] = sums, a.numel() // units

    tracer, unseen = trace(model, batch, after=measure)
    names = qualified_names(model)
    junctions, refused = [], dict(tracer.refused) | unseen
    sums: dict[str, Tensor] = {}
    inputs: dict[str, int] = {}
    for path in tracer.paths:
        if path.site is None:
            continue
        site = path.site.name
        if path.problem:
            refused[site] = path.problem
            continue
        norm = "" if path.norm is None else names[path.norm]
        outlets = tuple(names[outlet.layer] for outlet in path.outlets)
        place = names[path.layer], norm, outlets
        junctions.append(Junction(site, place, path.layer, path.norm, tuple(path.outlets)))
        sums[site], inputs[site] = magnitudes[path]
    return Wiring(tuple(junctions), refused, sums, inputs)


def trace(
    model: nn.Module, batch: Batch, *, before: Seen | None = None, after: Seen | None = None
) -> tuple[Tracer, dict[str, str]]:
    """Run one forward pass under a tracer; also the sites that no hook can see, with the reason."""
    openings = _Openings()
    taps = Taps(model, openings, observe="all", gradients=False)
    tracer = Tracer(model, openings.take, before, after)
    handles = []
    taps.attach()
    try:
        for module in model.modules():
            if lookup(module) is not None and not isinstance(module, torch.jit.ScriptModule):
                enters = module.register_forward_pre_hook(tracer.entering, with_kwargs=True, prepend=True)
                handles += [enters, module.register_forward_hook(tracer.leaving)]
        # entered when the root's forward begins, so that it stands above the taps' own function mode
        handles.append(model.register_forward_pre_hook(lambda *_: tracer.__enter__() and None))
        handles.append(
            model.register_forward_hook(lambda *_: tracer.__exit__(None, None, None), always_call=True)
        )
        with aside(model):
            tracer.finish(call(model, batch, device_of(model)))
    finally:
        for handle in handles:
            handle.remove()
        taps.detach()
    return tracer, {site.name: site.reason for site in taps.unseen(taps.called)}


def chosen(wiring: Wiring, sites: Collection[str] | None) -> tuple[Junction, ...]:
    """The junctions that are asked for.

    Args:
        wiring: of the model.
        sites: names of sites; None: all, each of which must then be possible.

    Raises:
        ValueError: there is no such site, or its units cannot be replaced one by one.
    """
    known = {junction.site: junction for junction in wiring.junctions}
    wanted = [*known, *wiring.refused] if sites is None else list(sites)
    unknown = [name for name in wanted if name not in known and name not in wiring.refused]
    if unknown:
        there = ", ".join([*known, *wiring.refused]) or "none"
        raise ValueError(f"sites: expected some of {there}, but got {unknown[0]!r}")
    bad = [f"{name}: {wiring.refused[name]}" for name in wanted if name in wiring.refused]
    if bad:
        able = f"sites={sorted(known)!r} leaves them out" if known else "no site of this model can be treated"
        raise ValueError(
            f"units can be replaced only where the layers before and behind them are known; {able}. "
            + "; ".join(bad)
        )
    return tuple(known[name] for name in wanted)


def by_name(model: nn.Module) -> dict[str, nn.Module]:
    """Modules by the names that sites and junctions bear: without what wrappers put in front.

    >>> sorted(by_name(nn.Sequential(nn.ReLU())))
    ['', '0']
    """
    return {name: module for module, name in qualified_names(model).items()}


def parameter(module: nn.Module, name: str) -> Tensor:
    """A parameter that is known to be there."""
    value = getattr(module, name)
    assert isinstance(value, Tensor)
    return value
