"""Bias lift: units that are silent on a batch get a larger bias, so that they open on a share of it.

Ours. A silent unit's bias grows by as much as its pre-activation lacks for the gate to open on the given
share of the inputs (positions), at least one; its incoming weights stay. Sites are lifted in the order of the
forward pass, each seeing the inputs that the lifted layers before it give. Moments of the bias and of the
incoming weights become 0, since what drove the unit out would go on driving it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from harness.hooks.batches import Batch
from harness.hooks.sites import qualified_names
from harness.remedies.acts import Act
from harness.remedies.marks import axis_of
from harness.remedies.running import Running, TorchRunning
from harness.remedies.tracing import Path
from harness.remedies.wiring import trace

KIND = "bias_lift"
MARGIN = 0.01  # above the gate, where a unit's pre-activation is the same on all inputs
OPENS_AT_ZERO = ("relu", "relu6", "clamp", "maximum")


def bias_lift(
    model: nn.Module,
    optimizer: Optimizer | Sequence[Optimizer] | None,
    batch: Batch,
    *,
    share: float = 0.1,
    sites: Collection[str] | None = None,
) -> list[Act]:
    """Lift the biases of the units that are silent on a batch; in place.

    Args:
        model: any model; the layer that makes each site's units is found from a forward pass.
        optimizer: what steps its parameters.
        batch: a tensor, a tuple whose first item is the input, or a dict of keyword arguments.
        share: of the inputs on which a lifted unit is to open, above 0 and at most 1.
        sites: names of the sites to act on; None: all, each of which must then be possible.

    Returns:
        One act for each site with silent units.

    Raises:
        ValueError: share is out of range, or a site cannot be lifted: no single layer makes its
            pre-activation, that layer has no bias or is called again, or its activation does not open at 0.

    Example:
        >>> model = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1))
        >>> _ = nn.init.ones_(model[0].weight), nn.init.constant_(model[0].bias, -9.0)
        >>> x = torch.arange(8.0).unsqueeze(1)
        >>> bias_lift(model, None, x, share=0.25)[0].units, int((model[:2](x) > 0).sum())
        (1, 2)
    """
    if not 0 < share <= 1:
        raise ValueError(f"share: expected a number above 0 and at most 1, but got {share!r}")
    able, refused = liftable(model, batch)
    wanted = [*able, *refused] if sites is None else list(sites)
    for name in wanted:
        if name not in able and name not in refused:
            raise ValueError(f"sites: expected some of {', '.join([*able, *refused])}, but got {name!r}")
        if name in refused:
            there = f"sites={sorted(able)!r} leaves it out" if able else "no site of this model can be lifted"
            raise ValueError(f"{name} cannot be lifted: {refused[name]}; {there}")
    return lift(model, batch, share, TorchRunning(optimizer), {name: able[name] for name in wanted})


class Makers(NamedTuple):
    """Names of the layer that makes a site's units and of the norm behind it, "" if there is none."""

    layer: str
    norm: str = ""


def liftable(model: nn.Module, batch: Batch) -> tuple[dict[str, Makers], dict[str, str]]:
    """The sites whose units can be lifted, with what makes them, and of the others why not."""
    tracer, unseen = trace(model, batch)
    names = qualified_names(model)
    able, refused = dict[str, Makers](), dict(tracer.refused) | unseen
    for path in tracer.paths:
        if path.site is None:
            continue
        name = path.site.name
        if path.site.activation not in OPENS_AT_ZERO:
            refused[name] = f"{path.site.activation} is not silent below 0"
        elif (path.norm or path.layer).bias is None:
            refused[name] = "the layer before it has no bias"
        elif tracer.calls(path.layer, path.norm) > 1:
            refused[name] = "the layer before it is called more than once in a forward pass"
        else:
            able[name] = Makers(names[path.layer], names[path.norm] if path.norm else "")
    return able, refused


def lift(
    model: nn.Module, batch: Batch, share: float, running: Running, sites: Mapping[str, Makers]
) -> list[Act]:
    """Lift the silent units of some sites, which are known to be liftable."""
    acts: list[Act] = []
    made_by = {model.get_submodule(makers.layer): site for site, makers in sites.items()}

    def raise_bias(path: Path, z: Tensor, marks: Tensor) -> None:
        found = axis_of(marks)
        if path.layer not in made_by or found is None:
            return
        axis, _ = found
        lifts = lacking(z.movedim(axis, -1).reshape(-1, z.shape[axis]), share)
        if lifts.any():
            shape = [1] * z.ndim
            shape[axis] = -1
            z.add_(lifts.view(shape))
            site = made_by[path.layer]
            acts.append(raised(site, around(model, sites[site]), lifts, share, running))

    trace(model, batch, before=raise_bias)
    return acts


def around(model: nn.Module, makers: Makers) -> dict[str, Tensor]:
    """The parameters that make a site's pre-activations; `bias` is the one added last."""
    layer = model.get_submodule(makers.layer)
    norm = model.get_submodule(makers.norm) if makers.norm else None
    named = {"weight": layer.weight, "gamma": getattr(norm, "weight", None), "bias": (norm or layer).bias}
    return {name: value for name, value in named.items() if isinstance(value, Tensor)}


def lacking(z: Tensor, share: float) -> Tensor:
    """By how much each unit's bias has to grow; 0 for those that open somewhere.

    Halfway between the last input that is to open it and the next, so that rounding does not matter.

    Args:
        z: (A, F) pre-activations.
        share: of the A inputs.

    Example:
        >>> lacking(torch.tensor([[-1.0, 5.0], [-2.0, -5.0], [-4.0, 0.0]]), 0.5)
        tensor([3., 0.])
    """
    inputs = len(z)
    opened = min(inputs, max(1, math.ceil(share * inputs - 1e-9)))
    highest = z.topk(min(inputs, opened + 1), dim=0).values
    last, following = highest[opened - 1], highest[-1]
    level = torch.where(last > following, (last + following) / 2, last - MARGIN)
    silent = (highest[0] <= 0) & z.isfinite().all(0)
    return torch.where(silent, -level, torch.zeros_like(level))


@torch.no_grad()
def raised(site: str, parameters: Mapping[str, Tensor], lifts: Tensor, share: float, running: Running) -> Act:
    """Add the lifts to a site's bias, and let the optimizer forget what it knows of these units."""
    units = lifts.nonzero().squeeze(1)
    parameters["bias"].add_(lifts)
    for parameter in parameters.values():
        for tensor in running.tensors(parameter):
            tensor[units] = 0
    return Act(KIND, site, len(units), f"opened on {share:g} of the inputs")
