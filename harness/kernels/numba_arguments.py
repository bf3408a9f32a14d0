"""What the compiled loops (numba) are given: a gate's bounds, and the record of a call."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from harness.activations.gates import Gate
from harness.kernels.numba import LANES
from harness.kernels.numba_intrinsics import LIKE

SCRATCH = np.empty(int(LANES) + 8)
SCRATCH = SCRATCH[-SCRATCH.ctypes.data % 64 // 8 :]  # shared by all calls: the loops hold the GIL


def bounds_of(gate: Gate, dtype: torch.dtype) -> np.ndarray:
    """The gate in the form the loops expect, in the precision of z: lows (1, units or 1), or (4, 1)."""
    kind = LIKE[dtype].dtype
    if isinstance(gate.low, Tensor):
        return gate.low.detach().to("cpu", dtype).numpy().reshape(1, -1)
    if gate.high == np.inf and not gate.has_hole:
        return np.full((1, 1), gate.low, kind)
    return np.array(gate, kind).reshape(4, 1)


def record_of(
    rows: int, positions: int, bounds: np.ndarray, counts: np.ndarray, sums: np.ndarray
) -> np.ndarray:
    """The record of a call, int64: sizes, and addresses of arrays, which must outlive it."""
    sizes = (rows, positions, counts.shape[1])
    places = (bounds.ctypes.data, *bounds.shape, counts.ctypes.data, sums.ctypes.data, SCRATCH.ctypes.data)
    return np.array((*sizes, *places), np.int64)
