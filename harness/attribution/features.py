"""Features: what a layer hands on, its effective rank, and whether the output still depends on the input."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.hooks.batches import Batch, as_batches, call, device_of, evaluation
from harness.hooks.module_hooks import Caller
from harness.hooks.taps import Taps
from harness.hooks.windows import Windows
from harness.kernels.layout import as_units

MOST = 4096  # rows of features (inputs × positions) that are kept per site


def effective_rank(features: Tensor) -> float:
    """The exponential of the entropy of the normalised singular values (Roy & Vetterli 2007).

    Args:
        features: (inputs, units).

    Returns:
        Between 1 and the rank; 0 for features that are all 0.

    Example:
        >>> round(effective_rank(torch.eye(5)), 6), effective_rank(torch.zeros(3, 2))
        (5.0, 0.0)
    """
    values = torch.linalg.svdvals(features.double())
    total = values.sum()
    if not total > 0:
        return 0.0
    p = values / total
    return float(torch.exp(-torch.special.xlogy(p, p).sum()))


def feature_ranks(model: nn.Module, batches: Batch | Iterable[Batch]) -> pd.DataFrame:
    """Effective rank of every site's features on some inputs, in evaluation mode; nothing is left behind.

    Args:
        model: any module.
        batches: as `harness.scan` takes them.

    Returns:
        One row per site: site, units, n (rows of features used, at most 4,096), effective_rank (NaN where
        the features are not finite). `attrs["collapsed"]` is whether the output is constant on all inputs.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
        >>> _ = nn.init.constant_(model[0].bias, -9)
        >>> found = feature_ranks(model, torch.rand(50, 3))
        >>> found.effective_rank.item(), found.attrs["collapsed"]
        (0.0, True)
    """
    windows, kept = Windows("probe"), dict[str, list[Tensor]]()
    taps = Taps(model, windows, observe="eval", gradients=False)

    def keep(caller: Caller, site: str, z: Tensor, axis: int) -> None:
        out = activated(caller, z)
        if out is None or out.shape != z.shape:
            return
        rows = as_units(out, axis)
        rows = rows if rows.ndim == 2 else rows.transpose(1, 2).reshape(-1, rows.shape[1])
        there = sum(len(part) for part in kept.setdefault(site, []))
        kept[site].append(rows[: max(0, MOST - there)].detach().clone())

    taps.on_call = keep
    outputs: list[Tensor] = []
    with evaluation(model), torch.no_grad():
        taps.attach()
        try:
            for batch in as_batches(batches):
                output = call(model, batch, device_of(model))
                if isinstance(output, Tensor) and output.ndim:
                    outputs.append(output.detach().reshape(len(output), -1))
        finally:
            taps.detach()
    rows = []
    for site in windows.sites:
        features = torch.cat(kept[site.name]) if kept.get(site.name) else None
        known = features is not None and bool(features.isfinite().all())
        rank = effective_rank(features) if known and features is not None else float("nan")
        n = 0 if features is None else len(features)
        rows.append({"site": site.name, "units": site.size, "n": n, "effective_rank": rank})
    table = pd.DataFrame(rows, columns=pd.Index(["site", "units", "n", "effective_rank"]))
    table.attrs["collapsed"] = constant(outputs)
    return table


def constant(outputs: list[Tensor], tolerance: float = 1e-6) -> bool | None:
    """Whether a network is collapsed (Lu et al. 2019, 1903.06733): its output is the same for all inputs.

    Args:
        outputs: batches of outputs, (inputs, …).
        tolerance: largest difference from the first input's output, relative to its size.

    Returns:
        None where that cannot be told: fewer than two inputs, or values that are not finite.
    """
    if not outputs or sum(map(len, outputs)) < 2 or len({part.shape[1:] for part in outputs}) > 1:
        return None
    values = torch.cat(outputs).double()
    if not bool(values.isfinite().all()):
        return None
    return bool((values - values[0]).abs().max() <= tolerance * max(1.0, float(values[0].abs().max())))


def activated(caller: Caller, z: Tensor) -> Tensor | None:
    """The activation's output for z, computed apart; None where it is not known how."""
    module: Any = caller.key
    if isinstance(module, nn.Module):
        return type(module).forward(module, z.clone())
    name, arguments = caller.gate_of.args  # pyright: ignore[reportFunctionMemberAccess]
    function = {"clamp": torch.clamp, "clamp_min": torch.clamp_min}.get(name) or getattr(F, name, None)
    if function is None:
        return torch.relu(z) if name == "maximum" else None
    return function(z.clone(), **{k: v for k, v in arguments.items() if k not in ("inplace", "out")})
