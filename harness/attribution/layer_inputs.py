"""Layer inputs: how large a layer's inputs are, and how far off centre."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from harness.attribution.replay import Layer, Replay, unit_rows
from harness.attribution.snapshots import Snapshot
from harness.graph.layers import layer_axis

COLUMNS = ("input_rms", "input_mean", "off_centre")


def layer_inputs(
    replay: Replay, snapshot: Snapshot, layers: Mapping[str, Layer]
) -> dict[str, dict[str, float]]:
    """Site name → rms of its layer's inputs, rms of their mean, and the mean's share of their power.

    Args:
        replay: replay of the model.
        snapshot: parameters and inputs of the pass.
        layers: site name → what makes its pre-activation.
    """
    sums: dict[str, list[Any]] = {}  # number of inputs, Σx, Σx²

    def add(site: str, layer: Layer, args: tuple[Any, ...]) -> None:
        n, total, squares = sums.setdefault(site, [0, 0.0, 0.0])
        x = args[0]
        if isinstance(x, Tensor) and x.is_floating_point():
            axis = layer_axis(replay.modules[layer.names[0]], x.ndim)
            rows = unit_rows(x, -1 if axis is None else axis).double()
            sums[site] = [n + len(rows), total + rows.sum(0), squares + rows.square().sum(0)]

    with replay.observing(layers, add):
        replay.run(snapshot)
    return {site: summary(*moments) for site, moments in sums.items()}


def summary(n: int, total: Any, squares: Any) -> dict[str, float]:
    """The columns, from the number of inputs, their sum and the sum of their squares, per feature."""
    if not n:
        return dict.fromkeys(COLUMNS, np.nan)
    mean, square = total / n, squares / n
    power = float(square.sum())
    return {
        "input_rms": float(square.mean().sqrt()),
        "input_mean": float(mean.square().mean().sqrt()),
        "off_centre": float(mean.square().sum()) / power if power > 0 else 0.0,
    }
