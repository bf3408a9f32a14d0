"""Birth: what the layers looked like before the first step, and what has become of them.

A unit that never opened was born so. The mean of its pre-activation is an exact sum: its bias, the mean of
its weights times what comes in, what the running mean of a norm takes away, and the rest (how its weights
happen to lie to inputs that are off centre), each in units of the pre-activation's deviation over the inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.func import functional_call

from harness.attribution.replay import NORMS, Layer, Moment, Passes
from harness.attribution.snapshots import Values
from harness.hooks.gradients import by_unit
from harness.hooks.sites import layer_axis
from harness.kernels.layout import as_units

PARTS = ("bias", "weight_mean", "norm_mean", "rest")  # columns birth_bias, …
PRODUCT = (nn.Linear, nn.modules.conv._ConvNd)


class Births:
    """What one pass shows of the layers that feed the sites.

    Args:
        passes: of the model.
        moment: the parameters and inputs of that pass.
        layers: site name → what makes its pre-activation.
    """

    def __init__(self, passes: Passes, moment: Moment, layers: Mapping[str, Layer]) -> None:
        self._modules, self._values = passes.modules, moment.values
        self._sums: dict[str, dict[str, Any]] = {}
        with passes.watched(layers, self._add):
            passes.over(moment)

    def units(self) -> pd.DataFrame:
        """Per site × unit the parts of the mean pre-activation, in deviations, and the deviation."""
        frames = []
        for site, sums in self._sums.items():
            n = max(1, sums["n"])
            mean = sums["z"] / n
            spread = (sums["zz"] / n - mean.square()).clamp_min(0).sqrt()
            scale = torch.where(spread > 0, spread, mean.abs().clamp_min(1e-30))
            parts = {name: (sums[name] / n / scale).cpu().numpy() for name in PARTS[:-1]}
            total = (mean / scale).cpu().numpy()
            columns = {f"birth_{name}": part for name, part in parts.items()}
            frame = pd.DataFrame({"site": site, "unit": np.arange(len(total)), **columns})
            frame["birth_rest"] = total - sum(parts.values())
            frame["spread"] = spread.cpu().numpy()
            frames.append(frame)
        return (
            pd.concat(frames, ignore_index=True)
            if frames
            else pd.DataFrame(columns=pd.Index(["site", "unit"]))
        )

    def inputs(self) -> dict[str, dict[str, float]]:
        """Per site: rms of its layer's inputs, rms of their mean, and the mean's share of their power."""
        found = {}
        for site, sums in self._sums.items():
            if not sums["inputs"]:
                found[site] = {"input_rms": np.nan, "input_mean": np.nan, "off_centre": np.nan}
                continue
            mean, square = sums["mean"] / sums["inputs"], sums["square"] / sums["inputs"]
            power = float(square.sum())
            found[site] = {
                "input_rms": float(square.mean().sqrt()),
                "input_mean": float(mean.square().mean().sqrt()),
                "off_centre": float(mean.square().sum()) / power if power > 0 else 0.0,
            }
        return found

    # --- inside -------------------------------------------------------------------------------------

    def _add(self, site: str, layer: Layer, args: tuple[Any, ...]) -> None:
        """Sum over one batch of the layer's inputs."""
        first = self._modules[layer.names[0]]
        x = args[0]
        parts = self._parts(layer, args)
        z = parts.pop("z")
        sums = self._sums.setdefault(site, {"n": 0, "inputs": 0, "square": 0.0, "mean": 0.0})
        sums["n"] += z.shape[0]
        for name, value in parts.items():
            sums[name] = sums.get(name, 0.0) + value * z.shape[0]
        sums["z"] = sums.get("z", 0.0) + z.double().sum(0)
        sums["zz"] = sums.get("zz", 0.0) + z.double().square().sum(0)
        if isinstance(x, Tensor) and x.is_floating_point():
            axis = layer_axis(first, x.ndim)
            rows = _rows(x, axis).double()
            sums["inputs"] += rows.shape[0]
            sums["mean"] = sums["mean"] + rows.sum(0)
            sums["square"] = sums["square"] + rows.square().sum(0)

    def _parts(self, layer: Layer, args: Any) -> dict[str, Tensor]:
        """The pre-activation z, (inputs, units), and the means of its parts per unit."""
        own = {name: self._of(name) for name in layer.names}
        z = self._run(layer, own, args)
        mean = z.double().mean(0)
        zero = torch.zeros_like(mean)

        def without(name: str, **changed: Any) -> Tensor:
            mixed = own | {name: own[name] | {k: v for k, v in changed.items() if k in own[name]}}
            return self._run(layer, mixed, args).double().mean(0)

        last = layer.names[-1]
        bias = zero
        for name in layer.names:
            if "bias" in own[name]:
                bias = bias + mean - without(name, bias=torch.zeros_like(own[name]["bias"]))
        norm = zero
        frozen = isinstance(self._modules[last], NORMS) and not self._modules[last].training
        if frozen and own[last].get("running_mean") is not None:
            norm = mean - without(last, running_mean=torch.zeros_like(own[last]["running_mean"]))
        weight_mean = zero
        name = layer.names[0]
        if isinstance(self._modules[name], PRODUCT) and "weight" in own[name]:  # it may be reparametrised
            weight = own[name]["weight"]
            rows = by_unit(weight, self._modules[name])
            average = rows.reshape(rows.shape[0], -1).mean(1)
            if rows.shape == weight.shape:
                flat = average.reshape(-1, *[1] * (weight.ndim - 1)).expand_as(weight)
                weight_mean = mean - without(name, weight=weight - flat)
        return {"z": z, "bias": bias, "weight_mean": weight_mean, "norm_mean": norm}

    def _run(self, layer: Layer, own: Mapping[str, Values], args: Any) -> Tensor:
        z: Any = args
        for name in layer.names:
            z = (functional_call(self._modules[name], {k: v.clone() for k, v in own[name].items()}, z),)
        axis = layer_axis(self._modules[layer.names[-1]], z[0].ndim)
        return _rows(z[0], axis)

    def _of(self, name: str) -> Values:
        prefix = f"{name}." if name else ""
        module = self._modules[name]
        return {
            short: self._values[prefix + short]
            for short, _ in (*module.named_parameters(), *module.named_buffers())
            if prefix + short in self._values
        }


def _rows(x: Tensor, axis: int | None) -> Tensor:
    """Inputs and positions × units."""
    units = as_units(x.detach(), -1 if axis is None else axis)
    return units if units.ndim == 2 else units.transpose(1, 2).reshape(-1, units.shape[1])


def weights_of(name: str, module: nn.Module, start: Values, now: Values) -> dict[str, float]:
    """A layer's weights at the start: how far their mean is from 0, how large they are; and their growth.

    Returns:
        weight_z: mean in standard errors of a mean of as many; gain: deviation over He's sqrt(2 / fan_in)
        (He et al. 2015); growth: norm now / norm then.
    """
    key = f"{name}.weight" if name else "weight"
    if not isinstance(module, PRODUCT) or key not in start:
        return {"weight_z": np.nan, "gain": np.nan, "growth": np.nan}
    then = start[key].double()
    fan_in = max(1, by_unit(then, module)[0].numel())
    spread = float(then.std()) if then.numel() > 1 else 0.0
    centre = float(then.mean())
    size = float(then.norm())
    after = float(now[key].double().norm()) if key in now else np.nan
    return {
        "weight_z": centre / (spread / then.numel() ** 0.5) if spread > 0 else np.sign(centre) * np.inf,
        "gain": spread / (2 / fan_in) ** 0.5,
        "growth": after / size if size > 0 else np.nan,
    }
