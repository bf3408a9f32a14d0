"""Reductions of a batch into a site's running sums: compiled loops on the CPU, fused kernels on a GPU.

Everything else takes the torch path. Neither that nor the fused kernels ever ask the device for a value.
"""

from __future__ import annotations

from math import prod

import numpy as np
import torch
from torch import Tensor

from harness.activations.table import Gate
from harness.kernels import numba as loops
from harness.kernels import triton as fused
from harness.kernels.layout import as_units
from harness.kernels.numba import ACTIVE, GRADIENT, HUGE, NON_FINITE, PEAK, SILENT, SQUARES, TOTAL

LIKE = {torch.float32: np.zeros(1, np.float32), torch.float64: np.zeros(1, np.float64)}
HALF = (torch.float16, torch.bfloat16)


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


class Layout:
    """How the units of a tensor lie in memory: (A, F, P) without gaps, all that the compiled loops need.

    Attributes:
        shape: of the tensor.
        dtype: of its values.
        format: the memory format in which it is without gaps.
        rows: A.
        positions: P.
        n: inputs, A · P.
    """

    __slots__ = ("dtype", "format", "n", "positions", "rows", "shape")

    def __init__(self, z: Tensor, axis: int) -> None:
        self.shape, self.dtype, self.format = z.shape, z.dtype, torch.contiguous_format
        self.rows, self.positions = prod(z.shape[:axis]), prod(z.shape[axis:][1:])
        if self.positions > 1 and z.ndim == 4 and axis == -3 and not z.is_contiguous():
            self.format = torch.channels_last
            self.rows, self.positions = self.rows * self.positions, 1
        self.n = self.rows * self.positions


def layout(z: Tensor, axis: int) -> Layout | None:
    """The layout of a CPU tensor, None where the compiled loops cannot take it as it lies in memory.

    Example:
        >>> here = layout(torch.zeros(2, 3, 4, 5), -3)
        >>> here.rows, here.positions, here.n
        (2, 20, 40)
    """
    if not z.is_cpu or z.dtype not in LIKE or z.ndim < -axis or z.numel() == 0:
        return None
    found = Layout(z, axis)
    return found if z.is_contiguous(memory_format=found.format) else None


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
    z, here, axis = _laid_out(sums, z, axis)
    if here is not None and sums.arrays is not None:
        bounds = bounds_of(gate, z)
        loops.accumulate(z.data_ptr(), here.rows, here.positions, again, bounds, *sums.arrays)
        return here.n
    if fused.serves(z):
        try:
            return fused.accumulate(sums, z, axis, gate, again=again)
        except fused.NotBuilt as error:
            fused.give_up(error)
    units = as_units(z, axis)
    n = units.numel() // max(1, units.shape[1])
    if n:
        _accumulate_torch(sums, units, gate, again, n)
    return n


def accumulate_gradient(sums: Sums, gradient: Tensor, axis: int) -> int:
    """Add the squares of ∂L/∂z, detached; returns the inputs counted."""
    gradient, here, axis = _laid_out(sums, gradient, axis)
    if here is not None and sums.arrays is not None:
        like = LIKE[gradient.dtype]
        loops.add_squares(gradient.data_ptr(), here.rows, here.positions, like, sums.arrays[1][GRADIENT])
        return here.n
    if fused.serves(gradient):
        try:
            return fused.accumulate_gradient(sums, gradient, axis)
        except fused.NotBuilt as error:
            fused.give_up(error)
    units = as_units(gradient, axis)
    if units.numel():
        sums.sums[GRADIENT] += units.to(sums.sums).square().sum(_others(units))
    return units.numel() // max(1, units.shape[1])


def unit_squares(weight: Tensor, bias: Tensor | None) -> Tensor:
    """Sum of squares of each unit's rows, units on axis 0: (F,) float64 on the same device."""
    flat = weight.detach().reshape(len(weight), -1)
    plain = type(flat) is Tensor and flat.is_cpu and flat.dtype in LIKE
    if plain and (bias is None or bias.dtype == flat.dtype):
        squares = np.zeros(len(flat))
        for part in (flat, bias):
            if part is not None and part.numel():
                part = part.detach().contiguous()
                positions = part.numel() // len(part)
                loops.add_squares(part.data_ptr(), 1, positions, LIKE[part.dtype], squares)
        return torch.from_numpy(squares)
    squares = flat.to(torch.float64).square().sum(1)
    return squares if bias is None else squares + bias.detach().to(torch.float64).square()


def bounds_of(gate: Gate, z: Tensor) -> np.ndarray:
    """The gate as the loops take it, in the precision of z: lows (1, units or 1), or all bounds (4, 1)."""
    kind = LIKE[z.dtype].dtype
    if isinstance(gate.low, Tensor):
        return gate.low.detach().cpu().numpy().astype(kind, copy=False).reshape(1, -1)
    if gate.high == np.inf and not gate.has_hole:
        return np.full((1, 1), gate.low, kind)
    return np.array(gate, kind).reshape(4, 1)


def _laid_out(sums: Sums, z: Tensor, axis: int) -> tuple[Tensor, Layout | None, int]:
    """The tensor as the loops can take it, copied where it must be; no layout where they cannot."""
    if sums.arrays is None or z.numel() == 0:
        return z, None, axis
    if z.dtype in HALF:
        z = z.float()  # exact
    here = layout(z, axis)
    if here is None and z.dtype in LIKE:
        z, axis = as_units(z, axis).contiguous(), 1 - as_units(z, axis).ndim
        here = layout(z, axis)
    return z, here, axis


def _others(units: Tensor) -> tuple[int, ...]:
    return (0,) if units.ndim == 2 else (0, 2)


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
