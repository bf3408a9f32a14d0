"""Reductions of a batch into a site's running sums: compiled loops on the CPU, plain torch elsewhere.

GPU tensors, half precision and traced code take the torch path, which never asks the device for a value.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.hooks import loops
from harness.hooks.activations import Gate
from harness.hooks.loops import ACTIVE, GRADIENT, HUGE, NON_FINITE, PEAK, SILENT, SQUARES, TOTAL
from harness.hooks.sites import as_units

COMPILED = (torch.float32, torch.float64)


class Sums:
    """Running sums of a site's F units on a device.

    Attributes:
        counts: (3, F) int64, rows ACTIVE, NON_FINITE, SILENT.
        sums: (4, F) float64, rows TOTAL, SQUARES, PEAK, GRADIENT.
        arrays: the same memory as numpy arrays, on the CPU.
    """

    __slots__ = ("arrays", "counts", "sums")

    def __init__(self, units: int, device: torch.device | str) -> None:
        self.counts = torch.zeros(3, units, dtype=torch.int64, device=device)
        self.sums = torch.zeros(4, units, dtype=torch.float64, device=device)
        self.sums[PEAK] = -torch.inf
        on_cpu = self.counts.device.type == "cpu"
        self.arrays = (self.counts.numpy(), self.sums.numpy()) if on_cpu else None


def accumulate(sums: Sums, z: Tensor, axis: int, gate: Gate, *, again: bool = False) -> int:
    """Count a batch of pre-activations in.

    Args:
        sums: of the site, changed in place.
        z: pre-activations, detached.
        axis: of the units, from the end.
        gate: where the activation's gate is open.
        again: a repeated call of the site in the same forward of the model.

    Returns:
        n, the inputs (batch × positions) counted.

    Example:
        >>> sums = Sums(2, torch.device("cpu"))
        >>> accumulate(sums, torch.tensor([[-1.0, 2.0], [-3.0, 4.0]]), -1, Gate(low=0.0))
        2
        >>> sums.counts[ACTIVE].tolist(), sums.sums[TOTAL].tolist()
        ([0, 2], [-4.0, 6.0])
    """
    if sums.arrays is None or z.dtype not in COMPILED:
        units = as_units(z, axis)
        n = units.numel() // max(1, units.shape[1])
        if n:
            _accumulate_torch(sums, units, gate, again, n)
        return n
    array = _as_array(z, axis)
    positions = array.shape[2] if array.ndim == 3 else 1
    n = array.shape[0] * positions
    if n:
        table = array.reshape(len(array), -1) if array.ndim == 3 else array
        bounds = _bounds(gate, array.dtype, positions, array.shape[1])
        loops.accumulate(table, bounds, positions, again, *sums.arrays)
    return n


def accumulate_gradient(sums: Sums, gradient: Tensor, axis: int) -> int:
    """Add the squares of ∂L/∂z, detached; returns the inputs counted."""
    if sums.arrays is None or gradient.dtype not in COMPILED:
        units = as_units(gradient, axis)
        if units.numel():
            wide = units.to(sums.sums)
            sums.sums[GRADIENT] += wide.square().sum(_others(units))
        return units.numel() // max(1, units.shape[1])
    array = _as_array(gradient, axis)
    if array.size:
        add = loops.accumulate_squares if array.ndim == 2 else loops.accumulate_squares_inner
        add(array, sums.arrays[1][GRADIENT])
    return array.size // max(1, array.shape[1])


def unit_squares(weight: Tensor, bias: Tensor | None) -> Tensor:
    """Sum of squares of each unit's rows, units on axis 0: (F,) float64 on the same device."""
    flat = weight.detach().reshape(len(weight), -1)
    plain = type(flat) is Tensor and flat.device.type == "cpu" and flat.dtype in COMPILED
    if plain and (bias is None or bias.dtype == flat.dtype):
        rest = flat[:0, 0] if bias is None else bias.detach()
        return torch.from_numpy(loops.row_squares(flat.contiguous().numpy(), rest.numpy()))
    squares = flat.to(torch.float64).square().sum(1)
    return squares if bias is None else squares + bias.detach().to(torch.float64).square()


def _as_array(z: Tensor, axis: int) -> np.ndarray:
    """(A, F) or (A, F, P), contiguous."""
    units = z if axis == -1 and z.ndim == 2 else as_units(z, axis)
    return (units if units.is_contiguous() else units.contiguous()).numpy()


def _others(units: Tensor) -> tuple[int, ...]:
    return (0,) if units.ndim == 2 else (0, 2)


def _bounds(gate: Gate, dtype: np.dtype[Any], positions: int, units: int) -> Any:
    """The gate as the loops take it: (low,), (low, high, hole_low, hole_high) or an array of lows."""
    if isinstance(gate.low, Tensor):
        low = gate.low.detach().cpu().numpy().astype(dtype, copy=False)
        return np.repeat(np.broadcast_to(low, (units,)), positions)
    kind = dtype.type
    if gate.high == np.inf and not gate.has_hole:
        return (kind(gate.low),)
    return tuple(kind(bound) for bound in gate)


def _accumulate_torch(into: Sums, z: Tensor, gate: Gate, again: bool, n: int) -> None:
    counts, sums = into.counts, into.sums
    dims = _others(z)
    wide = z.to(torch.float64)
    finite = wide.isfinite()
    low = gate.low
    if isinstance(low, Tensor):
        low = low.to(wide).reshape(-1, *(1,) * (z.ndim - 2))
    held = wide.clamp(-HUGE, HUGE)
    gated = (held > low) & (held < gate.high)
    if gate.has_hole:
        gated &= (held < gate.hole_low) | (held > gate.hole_high)
    kept = wide.where(finite, 0.0)
    opened = gated.sum(dims)
    counts[ACTIVE] += opened
    counts[NON_FINITE] += (~finite).sum(dims)
    loud = (opened > 0) | (counts[SILENT] == 0) if again else opened > 0
    counts[SILENT] = (counts[SILENT] + n) * ~loud
    sums[TOTAL] += kept.sum(dims)
    sums[SQUARES] += kept.square().sum(dims)
    sums[PEAK] = torch.maximum(sums[PEAK], wide.where(finite, -torch.inf).amax(dims))
