"""The initial state: why units were closed before the first step, and the distribution of the weights.

A unit that never opened was born dead. The mean of its pre-activation is an exact sum: its bias, the mean of
its weights times its inputs, what a norm's running mean subtracts, a constant that the model's own code adds
behind the layer, and the rest (the alignment of its weights with off-centre inputs), each in units of the
pre-activation's standard deviation over the inputs.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parametrize

from harness.attribution.replay import NORMS, Layer, Replay, unit_rows
from harness.attribution.snapshots import Snapshot, Values
from harness.recording.batches import preserve_state
from harness.recording.unit_parameters import by_unit

PARTS = ("bias", "weight_mean", "norm_mean", "constant", "rest")  # columns birth_bias, …
ROW_COLUMNS = ("row_z", "row_size", "bias_size")
STEADY = 1e-4  # largest relative deviation of a constant
SHIFT = 10.0  # size of a norm's shift, which is usually 0, in the units of a bias
CLOSE = 1e-3  # relative difference at which two means are the same
PRODUCT = (nn.Linear, nn.modules.conv._ConvNd)


class InitialState:
    """Pre-activations of one pass through the initial model.

    Args:
        replay: replay of the model.
        snapshot: parameters and inputs of that pass.
        layers: site name → what makes its pre-activation.
    """

    def __init__(self, replay: Replay, snapshot: Snapshot, layers: Mapping[str, Layer]) -> None:
        self._replay, self._values = replay, snapshot.values
        self._sums: dict[str, dict[str, Any]] = {}
        lows = {site: layer.gate.low for site, layer in layers.items() if layer.gate is not None}
        self._thresholds = {
            s: low for s, low in lows.items() if isinstance(low, float) and 0 < low < math.inf
        }
        self._sites = replay.watched(snapshot, layers, self._add)

    def is_handed(self, site: str) -> bool:
        """Whether a site receives exactly its layer's output: as many values per unit, with the same mean."""
        sums, seen = self._sums.get(site), self._sites.get(site)
        if sums is None or seen is None:
            return False
        mean = (sums["z"] / sums["n"]).cpu().numpy()
        if mean.shape != seen["mean"].shape or (seen["n"] != sums["n"]).any():
            return False
        close = np.abs(mean - seen["mean"]) <= CLOSE * (np.abs(mean) + seen["std"])
        return bool((close | ~np.isfinite(seen["mean"])).all())

    def units(self) -> pd.DataFrame:
        """For each site and unit, the parts of the mean pre-activation, in deviations, and the deviation."""
        return births(self._sums, self._thresholds)

    # --- inside -------------------------------------------------------------------------------------

    def _add(self, site: str, layer: Layer, args: tuple[Any, ...]) -> None:
        """Add one batch of the layer's inputs to the sums."""
        if not all(x.numel() for x in args if isinstance(x, Tensor)):
            return  # no input in this batch
        z, parts = self._parts(layer, args)
        totals = {name: value * len(z) for name, value in parts.items()}
        totals |= {"z": z.sum(0), "zz": z.square().sum(0), "n": len(z)}
        sums = self._sums.setdefault(site, dict.fromkeys(totals, 0))
        for name, total in totals.items():
            sums[name] = sums[name] + total

    def _parts(self, layer: Layer, args: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The pre-activation, (inputs, units), and the means of its parts per unit."""
        values = {name: self._values_of(name) for name in layer.names}
        modules = {name: self._replay.modules[name] for name in layer.names}
        z = self._pre_activation(layer, values, args)
        mean = z.mean(0)
        bias = norm = weight_mean = torch.zeros_like(mean)

        def loss_without(name: str, key: str, part: Tensor) -> Tensor:
            """By how much the mean falls without a part of one value."""
            changed = values | {name: values[name] | {key: values[name][key] - part}}
            return mean - self._pre_activation(layer, changed, args).mean(0)

        for name in layer.names:
            if "bias" in values[name]:
                bias = bias + loss_without(name, "bias", values[name]["bias"])
        last, first = layer.names[-1], layer.names[0]
        frozen = isinstance(modules[last], NORMS) and not modules[last].training
        if frozen and values[last].get("running_mean") is not None:
            norm = loss_without(last, "running_mean", values[last]["running_mean"])
        if isinstance(modules[first], PRODUCT) and "weight" in values[first]:  # may be reparametrised
            averages = row_averages(values[first]["weight"], modules[first])
            if averages is not None:
                weight_mean = loss_without(first, "weight", averages)
        return z, {"bias": bias, "weight_mean": weight_mean, "norm_mean": norm}

    def _pre_activation(self, layer: Layer, values: Mapping[str, Values], args: Any) -> Tensor:
        copies = {name: {k: v.clone() for k, v in own.items()} for name, own in values.items()}
        return unit_rows(*self._replay.pre_activation(layer, copies, args)).double()

    def _values_of(self, name: str) -> Values:
        named = self._replay.named_values(name)
        return {short: self._values[key] for short, key in named.items() if key in self._values}


def births(
    sums: Mapping[str, Mapping[str, Any]], thresholds: Mapping[str, float] | None = None
) -> pd.DataFrame:
    """The table of `InitialState.units`.

    Args:
        sums: site → number of inputs n, Σz and Σz² (z, zz), and the sum of each part except the rest.
        thresholds: site → threshold above 0 at which its gates open, treated as a subtracted constant.
    """
    frames = [pd.DataFrame(columns=pd.Index(["site", "unit"]))] if not sums else []
    for site, own in sums.items():
        mean = own["z"] / own["n"]
        spread = (own["zz"] / own["n"] - mean.square()).clamp_min(0).sqrt()
        parts = {name: (own[name] / own["n"]).cpu().numpy() for name in PARTS[:-1] if name in own}
        moments = mean.cpu().numpy(), spread.cpu().numpy()
        frames.append(birth_rows(site, *moments, parts, (thresholds or {}).get(site, 0.0)))
    return pd.concat(frames, ignore_index=True)


def birth_rows(
    site: str, mean: np.ndarray, spread: np.ndarray, parts: Mapping[str, Any], low: float = 0.0
) -> pd.DataFrame:
    """The rows of one site in that table.

    Args:
        site: its name.
        mean: means of the pre-activations, (units,).
        spread: their deviations, (units,).
        parts: contribution of each part except the rest to the mean; a layer's own output has no constant.
        low: as in `births`.
    """
    scale = np.where(spread > 0, spread, np.maximum(np.abs(mean), 1e-30))
    with np.errstate(invalid="ignore", over="ignore"):  # half precision overflows
        scaled = {name: parts.get(name, 0.0) / scale for name in PARTS[:-1]}
        scaled["constant"] = scaled["constant"] - low / scale
        scaled["rest"] = (mean - low) / scale - sum(scaled.values())
    columns = {f"birth_{name}": part for name, part in scaled.items()}
    return pd.DataFrame({"site": site, "unit": np.arange(len(mean)), **columns, "spread": spread})


def constant_part(mean: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """The pre-activation of units without their own layer's contribution, if it is constant; else 0.

    Args:
        mean: mean of that pre-activation, (units,).
        spread: its deviation over the inputs, (units,).
    """
    return np.where(np.isfinite(mean) & (spread <= STEADY * np.abs(mean)), mean, 0.0)


def row_averages(weight: Tensor, module: nn.Module) -> Tensor | None:
    """The mean of every unit's weights, in the weight's shape; None if its rows are not the units'."""
    rows = by_unit(weight, module)
    if rows.shape != weight.shape:
        return None
    average = rows.reshape(rows.shape[0], -1).mean(1)
    return average.reshape(-1, *[1] * (weight.ndim - 1)).expand_as(weight)


def own_rows(
    chains: Mapping[str, Sequence[Sequence[str]]],
    sizes: Mapping[str, int],
    modules: Mapping[str, nn.Module],
    start: Values,
    biased: Collection[str],
) -> list[pd.DataFrame]:
    """`row_statistics` of several sites.

    Args:
        chains: site → the layers that may make its units, each with the norm behind it.
        sizes: site → number of its units, which tells the right layer.
        modules: the modules by name.
        start: parameters and buffers at the start.
        biased: sites at which no norm removes the layer's own bias.
    """
    found = []
    for site, several in chains.items():
        tables = [row_statistics(site, names, modules, start, biased=site in biased) for names in several]
        if tables:
            found.append(next((rows for rows in tables if len(rows) == sizes[site]), tables[0].head(0)))
    return found


def row_statistics(
    site: str,
    names: Sequence[str],
    modules: Mapping[str, nn.Module],
    start: Values,
    *,
    biased: bool = False,
) -> pd.DataFrame:
    """Each unit's own weights and bias at the start, compared with its layer's.

    `biased`: whether the norm behind the layer, if there is one, leaves the layer's own bias, too.

    Returns:
        site, unit; row_z: mean of the incoming weights in standard errors of as many of the layer's;
        row_size: their norm over the layer's median; bias_size: for a layer, the bias over 1 / sqrt(fan_in),
        PyTorch's own bound; for a norm, its shift in units of 1 / `SHIFT`.
    """
    first, last = names[0], names[-1]
    if first not in modules:  # a parameter that is not in a module
        return pd.DataFrame(columns=pd.Index(["site", "unit", *ROW_COLUMNS]))
    weight = weight_of(first, modules[first], start)
    bias = start.get(f"{last}.bias" if last else "bias")
    product = isinstance(modules[first], PRODUCT) and weight is not None
    rows = by_unit(weight, modules[first]).flatten(1) if product and weight is not None else None
    bias = None if bias is None or bias.ndim != 1 else bias
    table = row_table(site, rows, bias, is_shift=isinstance(modules[last], NORMS))
    own = start.get(f"{first}.bias") if biased and len(names) > 1 else None
    if own is not None and own.ndim == 1 and rows is not None and len(own) == len(table):
        size = (own.double() * rows.shape[1] ** 0.5).cpu().numpy()
        table["bias_size"] = np.fmin(size, table.get("bias_size", np.nan))
    return table


def row_table(
    site: str, weight: Tensor | None, bias: Tensor | None, *, is_shift: bool = False
) -> pd.DataFrame:
    """The table of `row_statistics`.

    Args:
        site: its name.
        weight: (units, fan_in), None if there is none.
        bias: (units,), None if there is none.
        is_shift: whether the bias is a norm's shift.
    """
    table: dict[str, Any] = {"site": site}
    fan_in = 1
    if weight is not None:
        rows = weight.double()
        fan_in = max(1, rows.shape[1])
        sizes = rows.norm(dim=1)
        usual, spread = sizes.median(), rows.std(dim=1, correction=0).median()
        table["row_z"] = (rows.mean(1) / (spread / fan_in**0.5)).cpu().numpy() if spread > 0 else np.nan
        typical = usual if usual > 0 else sizes.max().clamp_min(1e-30)
        table["row_size"] = (sizes / typical).cpu().numpy()
        table["unit"] = np.arange(len(sizes))
    if bias is not None:
        scale = SHIFT if is_shift else fan_in**0.5
        table["bias_size"] = (bias.double() * scale).cpu().numpy()
        table["unit"] = np.arange(len(bias))
    sizes = {len(value) for value in table.values() if isinstance(value, np.ndarray)}
    if len(sizes) != 1:
        return pd.DataFrame(columns=pd.Index(["site", "unit", *ROW_COLUMNS]))
    return pd.DataFrame(table).reindex(columns=pd.Index(["site", "unit", *ROW_COLUMNS]))


def weight_of(name: str, module: nn.Module, values: Values) -> Tensor | None:
    """A layer's weight with some values of the model's parameters; None if these do not show it.

    Args:
        name: name of the layer.
        module: the layer; its weight may be parametrized (weight or spectral norm, say).
        values: name → value.
    """
    prefix = f"{name}." if name else ""
    if not parametrize.is_parametrized(module, "weight"):
        return values.get(f"{prefix}weight")
    parts = cast("nn.ModuleDict", module.parametrizations)["weight"]
    prefix += "parametrizations.weight."
    own = {key: values[prefix + key] for key in parts.state_dict() if prefix + key in values}
    with torch.no_grad(), preserve_state(parts):
        return functional_call(parts, {key: value.clone() for key, value in own.items()}, ()) if own else None


def weight_statistics(name: str, module: nn.Module, start: Values, latest: Values) -> dict[str, float]:
    """A layer's weights at the start: distance of their mean from 0 and their size; and their growth.

    Returns:
        weight_z: mean in standard errors of a mean of as many; gain: deviation over He's sqrt(2 / fan_in)
        (He et al. 2015); growth: norm now / norm then.
    """
    weight = weight_of(name, module, start)
    if not isinstance(module, PRODUCT) or weight is None:
        return {"weight_z": np.nan, "gain": np.nan, "growth": np.nan}
    fan_in = max(1, by_unit(weight, module)[0].numel())
    return weight_summary(weight, fan_in, weight_of(name, module, latest))


def _infinite(mean: float) -> float:
    """Distance of a mean without spread from 0, in deviations; NaN at 0."""
    return float(np.sign(mean)) * np.inf if mean else float("nan")


def weight_summary(start: Tensor, fan_in: int, latest: Tensor | None) -> dict[str, float]:
    """The result of `weight_statistics` for a layer's weights at the start and now."""
    weight = start.double()
    spread = float(weight.std()) if weight.numel() > 1 else 0.0
    mean, size = float(weight.mean()), float(weight.norm())
    size_now = float("nan") if latest is None else float(latest.double().norm())
    return {
        "weight_z": mean / (spread / weight.numel() ** 0.5) if spread > 0 else _infinite(mean),
        "gain": spread / (2 / fan_in) ** 0.5,
        "growth": size_now / size if size > 0 else np.nan,
    }
