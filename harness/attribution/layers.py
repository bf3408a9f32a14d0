"""Layers: which layer makes each site's pre-activation, and which layer feeds it if it is a norm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from contextlib import ExitStack
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from harness.activations.gates import Gate
from harness.attribution.birth_causes import LARGE_INPUTS
from harness.attribution.model_inputs import storage_of
from harness.attribution.replay import NORMS, Layer, Replay
from harness.attribution.snapshots import Snapshot
from harness.graph.layers import layer_axis
from harness.graph.operations import JOINS, function_name
from harness.graph.operations import NORMS as NORM_FUNCTIONS
from harness.graph.plan import Site, plain_name
from harness.recording.batches import tensors_in

#: Everything that makes a pre-activation: names of modules and parameters, each with the norm it feeds.
Chains = tuple[tuple[str, ...], ...]


def layers_of(
    replay: Replay, sites: Sequence[Site], gates: Mapping[str, Gate], snapshot: Snapshot
) -> tuple[dict[str, Layer], dict[str, Chains]]:
    """Site name → its layer, and site name → everything that makes its pre-activation.

    A site that reads a sum of several layers has no layer; a site made by something that is not in the
    snapshot has neither.

    Args:
        replay: replay of the model.
        sites: the observed sites.
        gates: site name → its gate.
        snapshot: its first inputs are run through the model once.

    Returns:
        The layers, and the names of modules and parameters; the name of a norm follows that of its layer.
    """
    modules = replay.modules
    names = {plain_name(name, replay.model): name for name in reversed(modules)}
    feeders, sources = _surroundings(replay, Snapshot(snapshot.values, snapshot.inputs[:1]))
    layers: dict[str, Layer] = {}
    makers: dict[str, Chains] = {}
    values = {plain_name(name, replay.model): name for name in snapshot.values}
    for site in sites:
        chains = [
            (feeders[n], n) if n in feeders else (n,)
            for n in (names.get(p) or values.get(p) for p in site.producers)
            if n is not None
        ]
        known = all(_are_known(replay, chain, snapshot) for chain in chains)
        if chains and len(chains) == len(site.producers) and known:
            makers[site.name] = tuple(chains)
        name = None if site.single_producer is None else names.get(site.single_producer)
        if name is None or layer_axis(modules[name], 4) is None:
            continue
        chain = (feeders[name], name) if name in feeders else (name,)
        if _are_known(replay, chain, snapshot):
            layers[site.name] = Layer(chain, gates.get(site.name), sources.get(chain[0], "layers"))
    return layers, makers


def _are_known(replay: Replay, makers: Sequence[str], snapshot: Snapshot) -> bool:
    """Whether a snapshot has all values of some modules and parameters."""
    return all(key in snapshot.values for name in makers for key in replay.named_values(name).values())


def _surroundings(replay: Replay, snapshot: Snapshot) -> tuple[dict[str, str], dict[str, str]]:
    """Norm → the layer whose output is its input; layer → the source of its input (`Layer.source`)."""
    outputs: dict[int, tuple[str, Any]] = {}
    feeders: dict[str, str] = {}
    sources: dict[str, str] = {}
    behind_layers = behind(snapshot)
    given = {storage_of(t) for t in tensors_in(snapshot.inputs)} - {0}
    normed = _Normed(given)
    ran = False

    def before(name: str, module: nn.Module, args: Any) -> None:
        nonlocal ran
        if args and isinstance(args[0], Tensor):
            at = storage_of(args[0])
            own = at in given or not ran
            source = "norm" if at in normed.storages else "inputs" if own else behind_layers
            sources.setdefault(name, "inputs, joined" if at in normed.joined and not own else source)
        # a module with children begins before them, unless it is a layer (whose weights are computed)
        ran = ran or layer_axis(module, 4) is not None or not any(True for _ in module.children())

    def after(name: str, module: nn.Module, args: Any, output: Any) -> None:
        if not isinstance(module, NORMS):
            outputs[id(output)] = name, output  # kept alive, so that its id is not reused
        elif args and id(args[0]) in outputs:
            feeders[name] = outputs[id(args[0])][0]

    layers = [(n, m) for n, m in replay.modules.items() if layer_axis(m, 4) is not None]
    own = [(n, m) for n, m in replay.modules.items() if any(True for _ in m.parameters(recurse=False))]
    with ExitStack() as hooks, replay.observing(), normed:
        for name, module in layers:
            hooks.enter_context(module.register_forward_hook(partial(after, name)))
        for name, module in dict([*layers, *own]).items():
            hooks.enter_context(module.register_forward_pre_hook(partial(before, name)))
        replay.run(snapshot)
    return feeders, sources


def behind(snapshot: Snapshot) -> str:
    """The source of something made by layers (`Layer.source`)."""
    return "inputs, through layers" if _are_off(snapshot) else "layers"


def _are_off(snapshot: Snapshot) -> bool:
    """Whether the model's own inputs are large, or their common mean outweighs their spread."""
    x = next((t for t in tensors_in(snapshot.inputs) if t.is_floating_point() and t.numel()), None)
    if x is None:
        return False
    rms, mean = float(x.double().square().mean().sqrt()), abs(float(x.double().mean()))
    return rms > LARGE_INPUTS or (mean > 0.7 and mean**2 > rms**2 / 2)


class _Normed(TorchFunctionMode):
    """Records the outputs of norms, and of joins with the model's inputs.

    Both are kept alive, so that their memory is not reused.

    Args:
        given: addresses of the model's inputs.
    """

    def __init__(self, given: Set[int]) -> None:
        super().__init__()
        self._given = given
        self.storages: dict[int, Tensor] = {}
        self.joined: dict[int, Tensor] = {}

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        name = function_name(function)
        if name in NORM_FUNCTIONS and isinstance(out, Tensor):
            self.storages[storage_of(out)] = out
        if name in JOINS and not self._given.isdisjoint(map(storage_of, tensors_in(args))):
            self.joined[storage_of(out)] = out
        return out
