"""Wiring: find the sites whose units can be replaced one by one, and why the others cannot."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed import get_world_size
from torch.nn.parallel import DistributedDataParallel

from harness.activations.stored import stored
from harness.graph.connections import ConnectionProvenance, OnOutput
from harness.graph.unit_connections import UnitConnections
from harness.graph.units import UnitLayout, rows_of_places, varying
from harness.hooks.eager import EagerTaps
from harness.hooks.sites import Caller
from harness.recording.batches import Batch, device_of, preserve_state
from harness.recording.model_calls import call
from harness.recording.windows import WindowAccumulator

OnInput = Callable[[str, Tensor, UnitLayout], None]  # site, pre-activation, layout of its units


class Wiring(NamedTuple):
    """What one forward pass shows.

    Attributes:
        connections: the sites whose units can be replaced one by one.
        refused: site → reason, for the other sites.
        magnitudes: site → (units,) float64, the sum of |activation| over the batch.
    """

    connections: tuple[UnitConnections, ...]
    refused: Mapping[str, str]
    magnitudes: Mapping[str, Tensor]

    @property
    def junctions(self) -> tuple[UnitConnections, ...]:
        """Deprecated: use `connections`."""
        warnings.warn("Wiring.junctions is deprecated: use connections", DeprecationWarning, stacklevel=2)
        return self.connections


def wire(model: nn.Module, batch: Batch) -> Wiring:
    """Trace one forward pass in the model's current mode; the model does not change.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1))
        >>> wiring = wire(model, torch.ones(2, 4))
        >>> [(c.site, c.name, c.consumers[0].name) for c in wiring.connections]
        [('1', '0', '2')]
    """
    magnitudes: dict[str, Tensor] = {}

    def measure(connections: UnitConnections, a: Tensor, unit_index: Tensor) -> None:
        by_place = rows_of_places(a.abs().double(), varying(unit_index)).sum(0)
        index = unit_index.flatten().long().to(a.device)
        magnitudes[connections.site] = by_place.new_zeros(int(index.max()) + 1).index_add_(0, index, by_place)

    traced = trace(model, batch, on_output=measure)
    used = [one for one in traced.found if one.site]
    refused = traced.refused | {one.site: one.problem for one in used if one.problem}
    return Wiring(tuple(one for one in used if not one.problem), refused, magnitudes)


def trace(
    model: nn.Module, batch: Batch, *, on_input: OnInput | None = None, on_output: OnOutput | None = None
) -> ConnectionProvenance:
    """Trace one forward pass; only the callbacks may change the model.

    Args:
        model: the root module.
        batch: inputs of the pass.
        on_input: called with each site's pre-activation, which it may change in place.
        on_output: called with the output of each traced activation.

    Raises:
        ValueError: the model is one of several replicas.
    """
    if isinstance(model, DistributedDataParallel) and get_world_size(model.process_group) > 1:
        raise ValueError(
            "a remedy acts on the batch of its own process, so that the replicas of DistributedDataParallel "
            "would differ: act on model.module in one process, and broadcast its parameters and buffers"
        )
    traces: list[ConnectionProvenance] = []
    errors: list[Exception] = []

    def start(root: nn.Module) -> ConnectionProvenance:
        traces.append(ConnectionProvenance(root, on_output))
        return traces[-1]

    def called(caller: Caller, site: str, z: Tensor, layout: UnitLayout) -> None:
        traces[-1].call(site, caller.activation)
        if on_input is not None:
            try:
                on_input(site, z, layout)
            except Exception as error:  # the taps would mistake it for an error of their own
                errors.append(error)

    taps = EagerTaps(model, WindowAccumulator("stream"), observe="all", gradients=False)
    taps.provenance, taps.counter.on_call = start, called
    with taps.attached(), torch.no_grad(), preserve_state(model), taps.alone():
        output = call(model, batch, device_of(model))
    if errors:
        raise errors[0]
    traced = traces[-1] if traces else start(model)  # hooks cannot attach to a scripted root
    traced.finish(output)
    traced.refused |= {site.name: site.reason for site in taps.unobserved(taps.called)}
    return traced


def select(
    able: Collection[UnitConnections],
    refused: Mapping[str, str],
    sites: Collection[str] | None,
    verb: str = "replaced",
) -> tuple[UnitConnections, ...]:
    """Select the requested sites.

    Args:
        able: sites that can be treated.
        refused: the other sites, with the reason.
        sites: names of sites; None: all, each of which must then be treatable.
        verb: the verb of the error message.

    Raises:
        ValueError: there is no such site, or it cannot be treated.
    """
    known = {one.site: one for one in able}
    wanted = [*known, *refused] if sites is None else list(sites)
    unknown = [name for name in wanted if name not in known and name not in refused]
    if unknown:
        there = ", ".join([*known, *refused]) or "none"
        raise ValueError(f"sites: expected some of {there}, but got {unknown[0]!r}")
    bad = [f"{name} cannot be {verb}: {refused[name]}" for name in wanted if name in refused]
    if bad:
        out = f"sites={sorted(known)!r} leaves them out" if known else f"no site of this model can be {verb}"
        raise ValueError("; ".join([*bad, out]))
    return tuple(known[name] for name in wanted)


def parameter(module: nn.Module, name: str) -> Tensor:
    """Return a parameter that is known to exist."""
    value = stored(module, name)
    assert isinstance(value, Tensor)
    return value
