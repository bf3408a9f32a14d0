"""Counterfactuals: what a unit's rate would be, had only some of the things changed that did.

Between two moments R (then) and N (now) six players can have changed for a unit: its incoming `weights` as
the gradient moved them, the part that weight `decay` moved, its `bias` (and β), the `norm` (running mean and
variance, where they are used), everything `upstream`, and the `data`. v(S) is the unit's activation rate
with the players in S as they are now and the others as they were then; Shapley values (Shapley 1953) share
v(all) - v(none) among the players, exactly.

A layer's input depends on upstream and data alone, so four passes through the model serve every layer: in
each, a hook on the layer computes its output with its own parameters mixed in every way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from math import factorial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from harness.activations.table import Gate
from harness.attribution.evidence import PLAYERS
from harness.attribution.replay import NORMS, Layer, Moment, Passes
from harness.attribution.snapshots import Values
from harness.hooks.sites import layer_axis
from harness.hooks.taps import Taps
from harness.hooks.windows import Windows
from harness.kernels.layout import as_units

OWN = PLAYERS[:4]  # of a unit's own layer


def shapley(value: Mapping[frozenset[str], np.ndarray], players: Sequence[str]) -> dict[str, np.ndarray]:
    """Shapley values of a game whose every coalition is known.

    Args:
        value: coalition → its value, arrays of one shape.
        players: all of them.

    Returns:
        Player → its value; they sum to v(all) - v(none).

    Example:
        >>> v = {frozenset(s): np.array(float(len(s) == 2)) for s in ("", "a", "b", "ab")}
        >>> {p: float(x) for p, x in shapley(v, "ab").items()}
        {'a': 0.5, 'b': 0.5}
    """
    n = len(players)
    found = {}
    for player in players:
        others = [p for p in players if p != player]
        total: Any = 0.0
        for chosen in product((False, True), repeat=n - 1):
            base = frozenset(p for p, there in zip(others, chosen, strict=True) if there)
            weight = factorial(len(base)) * factorial(n - len(base) - 1) / factorial(n)
            total = total + weight * (value[base | {player}] - value[base])
        found[player] = np.asarray(total)
    return found


class Mixer:
    """Passes of a model in which every layer's own parameters are mixed in every way.

    Args:
        passes: of the model, in the modes of its training.
        then: the reference.
        now: what came of it.
        decayed: name of a parameter → the part of its change that weight decay made.
    """

    def __init__(self, passes: Passes, then: Moment, now: Moment, decayed: Mapping[str, Tensor]) -> None:
        self._passes, self._then, self._now, self._decayed = passes, then, now, decayed

    def changed(self, names: Sequence[str]) -> list[str]:
        """The own players of a layer that differ between the two moments."""
        differs: set[str] = set()
        for name in names:
            for key, kind in self._own(name):
                if torch.equal(self._then.values[key], self._now.values[key]):
                    continue
                differs.add(kind)
                if kind == "weights" and key in self._decayed and bool(self._decayed[key].any()):
                    differs.add("decay")
        return [player for player in OWN if player in differs]

    def values(self, layers: Mapping[str, Layer]) -> dict[str, dict[frozenset[str], np.ndarray]]:
        """The rate of every unit under every coalition that can differ.

        Args:
            layers: site name → what makes its pre-activation. For the other sites (a residual sum), and where
                a layer's output is not what the site is handed, `upstream` is the whole network.

        Returns:
            Site name → coalition → rate per unit. Players that did not change are in no coalition.
        """
        moved = ["upstream"] if self._same_data() else ["upstream", "data"]
        found: dict[str, dict[frozenset[str], np.ndarray]] = {site: {} for site in layers}
        whole: dict[str, dict[frozenset[str], np.ndarray]] = {}
        for around in map(frozenset, _subsets(moved)):
            counts: dict[str, dict[frozenset[str], Tensor]] = {site: {} for site in layers}
            seen = dict.fromkeys(layers, 0)

            def look(site: str, layer: Layer, args: Any, counts: Any = counts, seen: Any = seen) -> None:
                seen[site] += self._mix(layer, args, counts[site])

            windows = Windows("stream")
            taps = Taps(self._passes.model, windows, observe="all", gradients=False)
            with self._passes.watched(layers, look):
                taps.attach()
                try:
                    self._passes.over(
                        Moment(
                            (self._now if "upstream" in around else self._then).values,
                            (self._now if "data" in around else self._then).inputs,
                        )
                    )
                finally:
                    taps.detach()
            columns = windows.close(0, [], None)
            for site in windows.sites:
                rows = columns["site"] == site.name
                whole.setdefault(site.name, {})[around] = columns["rate"][rows]
            for site in layers:
                for own, count in counts[site].items():
                    found[site][own | around] = (count.double() / max(1, seen[site])).cpu().numpy()
        for site, rates in whole.items():
            if site not in found or not self._agrees(found[site], rates, layers[site].names):
                found[site] = rates
        return {site: rates for site, rates in found.items() if rates}

    # --- inside -------------------------------------------------------------------------------------

    def _agrees(
        self,
        mixed: Mapping[frozenset[str], np.ndarray],
        whole: Mapping[frozenset[str], np.ndarray],
        names: Sequence[str],
    ) -> bool:
        """Whether the layers' output is what the site is handed: the rates at both moments are the same."""
        own = frozenset(self.changed(names))
        for around, rates in whole.items():
            found = mixed.get((own if "upstream" in around else frozenset()) | around)
            if (
                found is None
                or found.shape != rates.shape
                or np.nanmax(np.abs(found - rates), initial=0) > 1e-3
            ):
                return False
        return True

    def _same_data(self) -> bool:
        then, now = self._then.inputs, self._now.inputs
        return then is now or (
            len(then) == len(now) and all(_equal(a, b) for a, b in zip(then, now, strict=True))
        )

    def _mix(self, layer: Layer, args: Any, counts: dict[frozenset[str], Tensor]) -> int:
        """Add the open gates of every own coalition on a batch of layer inputs; the inputs are counted."""
        observed = 0
        for chosen in _subsets(self.changed(layer.names)):
            own = frozenset(chosen)
            z: Any = args
            for name in layer.names:
                module = self._passes.modules[name]
                z = functional_call(module, self._mixed(name, own), z)
                z = z if name == layer.names[-1] else (z,)
            axis = layer_axis(self._passes.modules[layer.names[-1]], z.ndim)
            units = as_units(z, -1 if axis is None else axis)
            count = opened(units, layer.gate)
            counts[own] = counts[own] + count if own in counts else count
            observed = units.numel() // max(1, units.shape[1])
        return observed

    def _own(self, name: str) -> Iterator[tuple[str, str]]:
        """Key and player of every parameter and statistic of a module."""
        module = self._passes.modules[name]
        for short, parameter in module.named_parameters():  # its own, or those that it is reparametrised by
            plain = parameter.ndim < 2 and "weight" not in short
            kind = "bias" if "bias" in short or plain else "weights"
            yield f"{name}.{short}" if name else short, kind
        if not isinstance(module, NORMS):  # masks of a pruned weight, vectors of a spectral norm
            for short, _ in module.named_buffers():
                yield f"{name}.{short}" if name else short, "weights"
        elif not self._passes.modes.get(name, module.training):
            for short, _ in module.named_buffers(recurse=False):
                if short in ("running_mean", "running_var"):
                    yield f"{name}.{short}" if name else short, "norm"

    def _mixed(self, name: str, own: frozenset[str]) -> Values:
        """A module's parameters with the players of a coalition as they are now."""
        prefix = f"{name}." if name else ""
        mixed = {}
        kinds = dict(self._own(name))
        module = self._passes.modules[name]
        for short, _ in (*module.named_parameters(), *module.named_buffers()):
            key = prefix + short
            then, now = self._then.values[key], self._now.values[key]
            kind = kinds.get(key)
            if kind == "weights":
                decay = self._decayed.get(key)
                value = then
                if decay is None:
                    value = now if "weights" in own else then
                elif {"weights", "decay"} <= own:
                    value = now
                elif "weights" in own:
                    value = now - decay
                elif "decay" in own:
                    value = then + decay
            else:
                value = now if kind in own else then
            mixed[short] = value.clone() if kind is None else value
        return mixed


def opened(units: Tensor, gate: Gate) -> Tensor:
    """On how many inputs each unit's gate is open; `units` is (A, F) or (A, F, P)."""
    low = gate.low
    if isinstance(low, Tensor) and low.ndim and units.ndim == 3:
        low = low.reshape(-1, 1)
    there = (units > low) & (units < gate.high)
    if gate.has_hole:
        there &= ~((units >= gate.hole_low) & (units <= gate.hole_high))
    return there.sum(dim=(0, 2) if units.ndim == 3 else 0)


def _subsets(players: Sequence[str]) -> Iterator[tuple[str, ...]]:
    for chosen in product((False, True), repeat=len(players)):
        yield tuple(p for p, there in zip(players, chosen, strict=True) if there)


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, Mapping):
        return set(a) == set(b) and all(_equal(a[k], b[k]) for k in a)
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(_equal(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)
