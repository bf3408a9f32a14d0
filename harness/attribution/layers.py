"""Layers: which layer makes each site's pre-activation, and which one feeds that layer if it is a norm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from torch import nn

from harness.activations.gates import Gate
from harness.attribution.replay import NORMS, Layer, Replay
from harness.attribution.snapshots import Snapshot
from harness.graph.layers import layer_axis
from harness.graph.plan import Site, plain_name


def layers_of(
    replay: Replay, sites: Sequence[Site], gates: Mapping[str, Gate], snapshot: Snapshot
) -> dict[str, Layer]:
    """Site name → its layer; sites without a layer that the snapshot knows are left out.

    Args:
        replay: of the model.
        sites: that were observed.
        gates: site name → its gate.
        snapshot: its first inputs are run through the model once.
    """
    modules = replay.modules
    names = {plain_name(name): name for name in reversed(modules)}
    feeders = _feeders(replay, Snapshot(snapshot.values, snapshot.inputs[:1]))
    layers = {}
    for site in sites:
        name = None if site.single_producer is None else names.get(site.single_producer)
        if name is None or site.name not in gates or layer_axis(modules[name], 4) is None:
            continue
        chain = (feeders[name], name) if name in feeders else (name,)
        parameters = [
            f"{n}.{short}" if n else short for n in chain for short, _ in modules[n].named_parameters()
        ]
        if all(parameter in snapshot.values for parameter in parameters):
            layers[site.name] = Layer(chain, gates[site.name])
    return layers


def _feeders(replay: Replay, snapshot: Snapshot) -> dict[str, str]:
    """Norm → the layer whose output is its input."""
    outputs: dict[int, tuple[str, Any]] = {}
    feeders: dict[str, str] = {}

    def after(name: str, module: nn.Module, args: Any, output: Any) -> None:
        if not isinstance(module, NORMS):
            outputs[id(output)] = name, output  # held, so that its id is not given to another
        elif args and id(args[0]) in outputs:
            feeders[name] = outputs[id(args[0])][0]

    layers = [(n, m) for n, m in replay.modules.items() if layer_axis(m, 4) is not None]
    handles = [m.register_forward_hook(partial(after, n)) for n, m in layers]
    try:
        with replay.observing({}, lambda *_: None):
            replay.run(snapshot)
    finally:
        for handle in handles:
            handle.remove()
    return feeders
