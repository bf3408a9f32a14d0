"""Counterfactuals: a unit's rate if only some of the changes between two snapshots had happened.

Between two snapshots (then and now), six factors may have changed for a unit: its incoming `weights` as moved
by the gradient, the part moved by weight `decay`, its `bias` (and β), the `norm` (running mean and variance,
where they are used), everything `upstream`, and the `data`. v(S) is the unit's activation rate with the
factors in S as they are now and the others as they were then; Shapley values divide v(all) - v(none) among
the factors exactly.

A layer's input depends on upstream and data alone, so four passes through the model serve every layer: in
each, a hook on the layer computes its output for every mixture of its own parameters.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from harness.activations.gates import Gate
from harness.attribution.mixing import Mixture
from harness.attribution.model_inputs import equal
from harness.attribution.replay import Layer, Rates, Replay
from harness.attribution.shapley import Coalition, coalitions
from harness.attribution.snapshots import Snapshot
from harness.kernels.layout import as_units


class CoalitionEvaluator:
    """Replays a model with every mixture of each layer's own parameters.

    Args:
        replay: replay of the model, in the modes of its training.
        then: the reference.
        now: the state to explain.
        decayed: name of a parameter → the part of its change due to weight decay.
    """

    def __init__(self, replay: Replay, then: Snapshot, now: Snapshot, decayed: Mapping[str, Tensor]) -> None:
        self._replay, self._then, self._now = replay, then, now
        self._mixture = Mixture(replay, then.values, now.values, decayed)

    def rates(
        self, layers: Mapping[str, Layer], on_pass: Callable[[], object] = lambda: None
    ) -> dict[str, Rates]:
        """The rate of every unit under every coalition that can differ.

        Args:
            layers: site name → what makes its pre-activation. For other sites (a residual sum), `upstream` is
                the whole network.
            on_pass: called after each of up to four passes.

        Returns:
            Site name → coalition → rate per unit. Factors that did not change are in no coalition. Sites
            whose input is not exactly their layer's output are left out: see `SiteReplay`.
        """
        shared = ["upstream"] if equal(self._then.inputs, self._now.inputs) else ["upstream", "data"]
        own = {site: list(coalitions(self._mixture.changed(layer.names))) for site, layer in layers.items()}
        mixed: dict[str, Rates] = {site: {} for site in layers}
        whole: dict[str, Rates] = {}
        for surroundings in coalitions(shared):
            for site, rate in self._pass(layers, own, surroundings, mixed).items():
                whole.setdefault(site, {})[surroundings] = rate
            on_pass()
        for site, rates in whole.items():
            if site not in mixed:
                mixed[site] = rates
            elif not _agree(mixed[site], rates, own[site][-1]):
                mixed[site] = {}
        return {site: rates for site, rates in mixed.items() if rates}

    # --- inside -------------------------------------------------------------------------------------

    def _pass(
        self,
        layers: Mapping[str, Layer],
        own: Mapping[str, Sequence[Coalition]],
        surroundings: Coalition,
        mixed: Mapping[str, Rates],
    ) -> dict[str, np.ndarray]:
        """Run the model with upstream and data of a coalition.

        Adds the rates of every own coalition of the layers to `mixed`; returns those of the sites.
        """
        opened: dict[tuple[str, Coalition], Any] = defaultdict(float)
        inputs: dict[tuple[str, Coalition], int] = defaultdict(int)

        def mix(site: str, layer: Layer, args: Any) -> None:
            first, *rest = layer.names
            known = {factor for _, factor in self._mixture.factors(first)}
            made: dict[
                Coalition, tuple[Tensor, int]
            ] = {}  # output of the first module; a norm behind it costs far less
            for coalition in own[site]:
                key = coalition & (known | {"decay"})
                output = made.get(key)
                if output is None:
                    values = {first: self._mixture.values(first, coalition)}
                    output = self._replay.pre_activation(Layer((first,), layer.gate), values, args)
                if rest:
                    made[key] = output
                    values = {name: self._mixture.values(name, coalition) for name in rest}
                    inner = Layer(tuple(rest), layer.gate)
                    output = self._replay.pre_activation(inner, values, (output[0],))
                units = as_units(*output)
                opened[site, coalition] += count_open(units, layer.gate)
                inputs[site, coalition] += units.numel() // max(1, units.shape[1])

        values = (self._now if "upstream" in surroundings else self._then).values
        data = (self._now if "data" in surroundings else self._then).inputs
        seen = self._replay.watched(Snapshot(values, data), layers, mix)
        for (site, coalition), count in opened.items():
            rate = count / max(1, inputs[site, coalition])
            mixed[site][coalition | surroundings] = rate.cpu().numpy()
        return {site: columns["rate"] for site, columns in seen.items()}


def _agree(mixed: Rates, whole: Rates, own: Coalition) -> bool:
    """Whether a layer's output is what its site receives: the rates at both times are the same."""
    for surroundings, rates in whole.items():
        there = mixed.get((own if "upstream" in surroundings else frozenset()) | surroundings)
        if there is None or there.shape != rates.shape:
            return False
        if np.nanmax(np.abs(there - rates), initial=0) > 1e-3:
            return False
    return True


def count_open(units: Tensor, gate: Gate | None) -> Tensor:
    """Number of inputs on which each unit's gate is open; `units` is (A, F) or (A, F, P)."""
    assert gate is not None
    low = gate.low
    if isinstance(low, Tensor) and low.ndim and units.ndim == 3:
        low = low.reshape(-1, 1)
    is_open = (units > low) & (units < gate.high)
    if gate.has_hole:
        is_open &= ~((units >= gate.hole_low) & (units <= gate.hole_high))
    return is_open.sum(dim=(0, 2) if units.ndim == 3 else 0).double()
