"""What every kernel should find, by numpy in float64; shares no code with them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from harness.activations.gates import Gate
from harness.kernels.accumulators import ACTIVE, MAX, NON_FINITE, SQUARES, SUM, Accumulators, shifted

GATES = {
    "relu": Gate(low=0.0),
    "relu6": Gate(low=0.0, high=0.8),
    "hole": Gate(low=-1.0, hole_low=-0.2, hole_high=0.1),
    "outside": Gate(hole_low=-0.5, hole_high=0.5),
}


def open_share(z: np.ndarray, gate: Gate) -> np.ndarray:
    v = np.clip(z, -1e38, 1e38)
    beside = (v < gate.hole_low) | (v > gate.hole_high) | (not gate.has_hole)
    return (v > np.asarray(gate.low)) & (v < gate.high) & beside


def expected(z: Tensor, axis: int, gate: Gate) -> dict[str, np.ndarray]:
    units = np.moveaxis(z.double().numpy(), axis, 0).reshape(z.shape[axis], -1)
    if isinstance(gate.low, Tensor):
        gate = gate._replace(low=gate.low.double().numpy()[:, None])
    finite = np.isfinite(units)
    kept = np.where(finite, units, 0)
    return {
        "active": open_share(units, gate).sum(1),
        "non_finite": (~finite).sum(1),
        "finite": finite.sum(1),
        "total": kept.sum(1),
        "squares": (kept**2).sum(1),
        "peak": np.where(finite, units, -np.inf).max(1),
    }


def check(sums: Accumulators, want: dict[str, np.ndarray], *, tolerance: float) -> None:
    counts = sums.counts.numpy()
    values = shifted(sums.sums, torch.from_numpy(want["finite"]), 0.0).numpy()
    np.testing.assert_array_equal(counts[ACTIVE], want["active"])
    np.testing.assert_array_equal(counts[NON_FINITE], want["non_finite"])
    np.testing.assert_array_equal(values[MAX], want["peak"])
    scale = np.sqrt(want["squares"]) + 1e-30
    np.testing.assert_allclose(values[SQUARES], want["squares"], rtol=tolerance)
    assert (np.abs(values[SUM] - want["total"]) <= tolerance * 30 * scale).all()
