"""Features: a layer's outputs, their effective rank, and whether the model's output depends on the input."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd
import torch
from torch import Tensor, nn

from harness.attribution.replay import unit_rows
from harness.graph.units import UnitLayout, arranged
from harness.hooks.eager import EagerTaps
from harness.hooks.sites import Caller
from harness.recording.batches import Batch, evaluation
from harness.recording.model_calls import outputs
from harness.recording.windows import WindowAccumulator

MOST = 4096  # largest number of rows of features (inputs × positions) used per site


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
    """Effective rank of every site's features on some inputs, in evaluation mode; leaves no trace.

    Args:
        model: any module.
        batches: as in `harness.scan`.

    Returns:
        One row per site: site, units, n (rows of features used, at most 4,096), effective_rank (NaN if the
        features are not finite). `attrs["collapsed"]` is whether the output is constant on all inputs.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
        >>> _ = nn.init.constant_(model[0].bias, -9)
        >>> found = feature_ranks(model, torch.rand(50, 3))
        >>> found.effective_rank.item(), found.attrs["collapsed"]
        (0.0, True)
    """
    windows, features = WindowAccumulator("probe"), dict[str, list[Tensor]]()
    taps = EagerTaps(model, windows, observe="eval", gradients=False)

    def add(caller: Caller, site: str, z: Tensor, layout: UnitLayout) -> None:
        out = caller.compute(z.detach().clone())
        if out is not None and out.shape == z.shape:
            parts = features.setdefault(site, [])
            missing = max(0, MOST - sum(map(len, parts)))
            parts.append(unit_rows(arranged(out, layout), layout.axes)[:missing].clone())

    taps.counter.on_call = add
    kept: list[Tensor] = []
    with evaluation(model), taps.attached():
        for _, output in outputs(model, batches):
            if isinstance(output, Tensor) and output.ndim:
                kept.append(output.detach().reshape(len(output), -1))
    rows = []
    for site in windows.sites:
        x = torch.cat(features[site.name]) if site.name in features else torch.empty(0, site.size)
        rank = effective_rank(x) if len(x) and bool(x.isfinite().all()) else float("nan")
        rows.append({"site": site.name, "units": site.size, "n": len(x), "effective_rank": rank})
    table = pd.DataFrame(rows, columns=pd.Index(["site", "units", "n", "effective_rank"]))
    table.attrs["collapsed"] = constant(kept)
    return table


def constant(outputs: list[Tensor], tolerance: float = 1e-6) -> bool | None:
    """Whether a network has collapsed (Lu et al. 2019, 1903.06733): its output is the same for all inputs.

    Args:
        outputs: batches of outputs, (inputs, …).
        tolerance: largest difference from the first input's output, relative to its size.

    Returns:
        None if unknown: fewer than two inputs, or non-finite values.
    """
    if not outputs or sum(map(len, outputs)) < 2 or len({part.shape[1:] for part in outputs}) > 1:
        return None
    values = torch.cat(outputs).double()
    if not bool(values.isfinite().all()):
        return None
    return bool((values - values[0]).abs().max() <= tolerance * max(1.0, float(values[0].abs().max())))
