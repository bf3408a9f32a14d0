"""Site replay: shares and births of sites whose input is not simply the output of one layer.

If something is added to the layer's output, or it is sliced, padded or permuted on the way, the layer alone
does not determine the pre-activation. Then the whole model is run for every question and the site itself is
read, which is correct whatever lies in between, at the cost of one pass each.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from harness.attribution.initial_state import PRODUCT, birth_rows, constant_part, row_averages
from harness.attribution.mixing import Mixture
from harness.attribution.model_inputs import equal
from harness.attribution.replay import NORMS, Rates, Replay
from harness.attribution.shapley import coalitions
from harness.attribution.snapshots import Snapshot, Values

BIRTH = 4  # largest number of passes for a site's birth


class SiteReplay:
    """Examines single sites by passes through the whole model.

    Args:
        replay: replay of the model, in the modes of its training.
        then: the reference.
        now: the state to explain.
        decayed: name of a parameter → the part of its change due to weight decay.
        biases: names of further parameters that are biases, whatever they are called.
    """

    def __init__(
        self,
        replay: Replay,
        then: Snapshot,
        now: Snapshot,
        decayed: Mapping[str, Tensor],
        biases: Collection[str] = (),
    ) -> None:
        self._replay, self._then, self._now = replay, then, now
        self._mixture = Mixture(replay, then.values, now.values, decayed, biases)
        self._shared = ["upstream"] if equal(then.inputs, now.inputs) else ["upstream", "data"]
        self._seen: dict[tuple[bool, bool], dict[str, dict[str, np.ndarray]]] = {}  # unmixed passes

    def passes(self, makers: Iterable[str]) -> int:
        """Number of passes for the rates of one site, besides those that serve all sites."""
        factors = [*self._mixture.changed(tuple(makers)), *self._shared]
        return 2 ** len(factors) - 2 ** len(self._shared)

    def rates(self, site: str, makers: Iterable[str]) -> Rates:
        """The rate of every unit under every coalition that can differ.

        Args:
            site: its name.
            makers: names of the modules and parameters that make its pre-activation: its units' own layer.
                Everything else is `upstream`.
        """
        makers = tuple(makers)
        factors = [*self._mixture.changed(makers), *self._shared]
        rates: Rates = {}
        for coalition in coalitions(factors):
            inputs = (self._now if "data" in coalition else self._then).inputs
            if len(coalition - {"data"}) in (0, len(set(factors) - {"data"})):
                seen = self._unmixed("upstream" in coalition, "data" in coalition)
            else:
                seen = self._replay.watched(Snapshot(self._mixture.whole(makers, coalition), inputs))
            if site not in seen:
                return {}
            rates[coalition] = seen[site]["rate"]
        return rates

    def birth(self, site: str, makers: Iterable[str]) -> pd.DataFrame:
        """For each unit, the parts of the mean pre-activation at the start, as in `InitialState.units`."""
        makers = tuple(makers)
        start = self._unmixed(False, False)
        if site not in start:
            return pd.DataFrame(columns=pd.Index(["site", "unit"]))
        mean, spread = start[site]["mean"], start[site]["std"]
        parts = {}
        for part, change in (("bias", _biases), ("weight_mean", _averages), ("norm_mean", _statistics)):
            values = self._changed(makers, change)
            parts[part] = 0.0 if values is None else mean - self._mean(site, values)
        parts["constant"] = self._constant(site, makers)
        return birth_rows(site, mean, spread, parts)

    # --- inside -------------------------------------------------------------------------------------

    def _unmixed(self, new_values: bool, new_inputs: bool) -> dict[str, dict[str, np.ndarray]]:
        """One pass with all values of one time and the inputs of one time; it serves every site."""
        key = new_values, new_inputs
        if key not in self._seen:
            values = (self._now if new_values else self._then).values
            inputs = (self._now if new_inputs else self._then).inputs
            self._seen[key] = self._replay.watched(Snapshot(values, inputs))
        return self._seen[key]

    def _mean(self, site: str, values: Values) -> np.ndarray:
        return self._replay.watched(Snapshot(values, self._then.inputs))[site]["mean"]

    def _constant(self, site: str, makers: Iterable[str]) -> np.ndarray:
        """The constant added to the makers' output: the site's pre-activation if that output is 0."""
        modules = [self._replay.modules[name] for name in makers if name in self._replay.modules]
        owners = [self._replay.modules.get(name.rpartition(".")[0]) for name in makers]
        start = self._unmixed(False, False)[site]["mean"]
        if any(isinstance(one, nn.RNNBase | nn.RNNCellBase) for one in (*owners, *modules)):
            return np.zeros(len(start))  # its units are no sum, of which a part could be taken away
        values = dict(self._then.values)
        for name in makers:
            if name not in self._replay.modules:  # a parameter that is not in a module
                values[name] = torch.zeros_like(values[name])
        with ExitStack() as hooks:
            for module in modules:
                hooks.enter_context(module.register_forward_hook(_nothing))
            seen = self._replay.watched(Snapshot(values, self._then.inputs))
        if site not in seen or seen[site]["mean"].shape != start.shape:
            return np.zeros(len(start))
        return constant_part(seen[site]["mean"], seen[site]["std"])

    def _changed(
        self, makers: Iterable[str], change: Callable[[nn.Module | None, str, Tensor], Tensor | None]
    ) -> Values | None:
        """The model's values without some part of the makers' values; None if there is no such part."""
        values, any_changed = dict(self._then.values), False
        for name in makers:
            module = self._replay.modules.get(name)
            for short, key in self._replay.named_values(name).items():
                changed = change(module, short.rpartition(".")[2], values[key])
                if changed is not None:
                    values[key], any_changed = changed, True
        return values if any_changed else None


def _nothing(module: nn.Module, args: Any, output: Any) -> Any:
    """Forward hook that makes an output 0 but keeps it computed from its parameters, which name the site."""
    return output * 0 if isinstance(output, Tensor) else output


def _biases(module: nn.Module | None, name: str, value: Tensor) -> Tensor | None:
    """Zeros in place of the bias."""
    is_own = name == "bias" if module is not None else "bias" in name or value.ndim < 2
    return value.new_zeros(value.shape) if is_own and value.is_floating_point() else None


def _averages(module: nn.Module | None, name: str, value: Tensor) -> Tensor | None:
    """The weights minus the mean of each unit's weights."""
    if name != "weight" or not isinstance(module, PRODUCT):
        return None
    averages = row_averages(value, module)
    return None if averages is None else value - averages


def _statistics(module: nn.Module | None, name: str, value: Tensor) -> Tensor | None:
    """Zeros in place of a norm's running mean, if it is used."""
    used = isinstance(module, NORMS) and not module.training
    return value.new_zeros(value.shape) if used and name == "running_mean" else None
