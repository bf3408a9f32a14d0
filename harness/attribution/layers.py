"""Producers: which layer makes each site's pre-activation, and which one feeds that layer if it is a norm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from torch import nn

from harness.activations.table import Gate
from harness.attribution.replay import NORMS, Layer, Moment, Passes
from harness.hooks.sites import Site, layer_axis, plain_name


def layers_of(
    passes: Passes, sites: Sequence[Site], gates: Mapping[str, Gate], moment: Moment
) -> dict[str, Layer]:
    """Site name → its layer; sites that are not fed by one of the model's layers of that moment are left out.

    Args:
        passes: of the model.
        sites: that were observed.
        gates: site name → its gate.
        moment: its first inputs are run through the model once.
    """
    modules = passes.modules
    names = {plain_name(name): name for name in reversed(modules)}
    feeders = _feeders(passes, Moment(moment.values, moment.inputs[:1]))
    found = {}
    for site in sites:
        name = None if site.producer is None else names.get(site.producer)
        if name is None or site.name not in gates or layer_axis(modules[name], 4) is None:
            continue
        before = feeders.get(name)
        made_by = (name,) if before is None else (before, name)
        if all(key in moment.values for own in made_by for key in _keys(own, modules[own])):
            found[site.name] = Layer(made_by, gates[site.name])
    return found


def _keys(name: str, module: nn.Module) -> list[str]:
    """Of a module's parameters among those of the model; one that came later has others."""
    return [f"{name}.{short}" if name else short for short, _ in module.named_parameters()]


def _feeders(passes: Passes, moment: Moment) -> dict[str, str]:
    """Norm → the layer whose output it is handed."""
    outputs: dict[int, tuple[str, Any]] = {}
    found: dict[str, str] = {}

    def after(name: str, module: nn.Module, args: Any, output: Any) -> None:
        if not isinstance(module, NORMS):
            outputs[id(output)] = name, output  # kept alive, so that its id stays its own
        elif args and id(args[0]) in outputs:
            found[name] = outputs[id(args[0])][0]

    layered = [(n, m) for n, m in passes.modules.items() if layer_axis(m, 4) is not None]
    handles = [m.register_forward_hook(partial(after, n)) for n, m in layered]
    try:
        with passes.watched({}, lambda *_: None):
            passes.over(moment)
    finally:
        for handle in handles:
            handle.remove()
    return found
