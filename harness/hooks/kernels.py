"""Single-pass reductions of a batch to per-unit sums.

Legend: A rows (inputs), F units, P positions of one input (1 for dense layers); N = A · P inputs per unit.

`observe` reads z once and returns per unit (active, total, squares, peak, non_finite); `observe_gradient`
reads a gradient once. CPU tensors of float32 and float64 go through compiled loops that sum in short float
runs around a per-unit reference value and carry the runs in float64; a batch with a non-finite sum is
counted again, value by value. Everything else (GPU, half precision, traced code) takes plain torch.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba as nb
import numpy as np
import torch
from numba.extending import overload
from torch import Tensor

from harness.hooks.activations import Gate

RUN = 512  # rows or positions that are summed in z's own precision before the sum moves to float64
HUGE = 1e38  # stands for an infinite z when its gate is asked for
NARROW = 64  # fewer positions than this are treated as further columns
REORDER = {"reassoc", "contract", "nsz"}  # vectorised sums; NaN and infinities keep their meaning


class Reduction(NamedTuple):
    """Sums over one batch, each of shape (F,): counts int64, the rest float64; mean and max of finite z."""

    active: Any
    total: Any
    squares: Any
    peak: Any
    non_finite: Any


def observe(z: Tensor, gate: Gate) -> Reduction:
    """Reduce pre-activations to per-unit sums.

    Args:
        z: pre-activations of shape (A, F) or (A, F, P), detached.
        gate: where the activation's gate is open.

    Returns:
        numpy arrays where a compiled loop served, tensors on z's device elsewhere.

    Example:
        >>> z = torch.tensor([[-1.0, 2.0], [-3.0, float("nan")]])
        >>> r = observe(z, Gate(low=0.0))
        >>> r.active.tolist(), r.total.tolist(), r.non_finite.tolist()
        ([0, 1], [-4.0, 2.0], [0, 1])
    """
    if not _compiled(z):
        return _observe_torch(z, gate)
    array = _contiguous(z)
    bounds = _bounds(gate, array.dtype, array.shape[1])
    if array.ndim == 3 and array.shape[2] < NARROW:
        rows, units, positions = array.shape
        wide = bounds if isinstance(bounds, tuple) else np.repeat(bounds, positions)
        parts = _rows(array.reshape(rows, units * positions), wide)
        sums = [part.reshape(units, positions).sum(1) for part in parts[:3]]
        result = (*sums, parts[3].reshape(units, positions).max(1, initial=-np.inf))
    elif array.ndim == 3:
        result = _channels(array, bounds)
    else:
        result = _rows(array, bounds)
    active, total, squares, peak = result
    if np.isfinite(squares).all():
        return Reduction(active, total, squares, peak, np.zeros(len(active), np.int64))
    return Reduction(*_exact(array.reshape(*array.shape[:2], -1), bounds))


def observe_gradient(gradient: Tensor) -> Any:
    """Per-unit sum of squares of a gradient (A, F) or (A, F, P), float64; exactly 0 iff all are 0."""
    if not _compiled(gradient):
        wide = gradient.detach().to(torch.float64)
        return wide.square().sum(_others(wide))
    array = _contiguous(gradient)
    return _squares_rows(array) if array.ndim == 2 else _squares_channels(array)


def row_norms_squared(gradient: Tensor) -> Any:
    """Per-unit sum of squares of a parameter's gradient, units on axis 0; shape (F,), float64."""
    flat = gradient.detach().reshape(1, len(gradient), -1)
    return observe_gradient(flat)


def _compiled(z: Tensor) -> bool:
    return z.device.type == "cpu" and z.dtype in (torch.float32, torch.float64)


def _contiguous(z: Tensor) -> np.ndarray:
    return z.detach().contiguous().numpy()


def _others(z: Tensor) -> tuple[int, ...]:
    return (0,) if z.ndim == 2 else (0, 2)


def _bounds(gate: Gate, dtype: np.dtype[Any], units: int) -> Any:
    """The gate as the kernels take it: (low,), (low, high, hole_low, hole_high) or an array of lows."""
    if isinstance(gate.low, Tensor):
        low = gate.low.detach().cpu().numpy().astype(dtype, copy=False)
        return np.ascontiguousarray(np.broadcast_to(low, (units,)))
    kind = dtype.type
    if gate.high == np.inf and not gate.has_hole:
        return (kind(gate.low),)
    return tuple(kind(bound) for bound in gate)


def _observe_torch(z: Tensor, gate: Gate) -> Reduction:
    dims = _others(z)
    wide = z.detach().to(torch.float64)
    finite = wide.isfinite()
    low = gate.low
    if isinstance(low, Tensor):
        low = low.to(wide).reshape(-1, *(1,) * (z.ndim - 2))
    held = wide.clamp(-HUGE, HUGE)
    gated = (held > low) & (held < gate.high)
    if gate.has_hole:
        gated &= (held < gate.hole_low) | (held > gate.hole_high)
    kept = wide.where(finite, 0.0)
    floor = wide.where(finite, -torch.inf)
    peak = floor.amax(dims) if z.numel() else floor.new_full((z.shape[1],), -torch.inf)
    return Reduction(gated.sum(dims), kept.sum(dims), kept.square().sum(dims), peak, (~finite).sum(dims))


def _is_open(v, bounds, j):  # compiled below, by the kind of the bounds
    raise NotImplementedError


@overload(_is_open)
def _is_open_typed(v, bounds, j):
    if isinstance(bounds, nb.types.Array):
        return lambda v, bounds, j: v > bounds[j]
    if len(bounds) == 1:
        return lambda v, bounds, j: v > bounds[0]
    return lambda v, bounds, j: (v > bounds[0]) & (v < bounds[1]) & ((v < bounds[2]) | (v > bounds[3]))


@nb.njit(nogil=True, cache=True, fastmath=REORDER | {"nnan"})
def _rows(z, bounds):
    """(A, F): four rows at a time into accumulators that stay in the cache."""
    rows, units = z.shape
    active, total, squares = np.zeros(units, np.int64), np.zeros(units), np.zeros(units)
    count, part, part2 = np.empty(units, np.int32), np.empty(units, z.dtype), np.empty(units, z.dtype)
    peak = np.full(units, -np.inf, z.dtype)
    if rows == 0:
        return active, total, squares, peak.astype(np.float64)
    about = z[0].copy()
    for start in range(0, rows, RUN):
        stop = min(rows, start + RUN)
        whole = start + (stop - start) // 4 * 4
        count[:], part[:], part2[:] = 0, 0, 0
        for i in range(start, whole, 4):
            for j in range(units):
                a, b, c, d = z[i, j], z[i + 1, j], z[i + 2, j], z[i + 3, j]
                count[j] += (
                    np.int32(_is_open(a, bounds, j))
                    + np.int32(_is_open(b, bounds, j))
                    + np.int32(_is_open(c, bounds, j))
                    + np.int32(_is_open(d, bounds, j))
                )
                e = a if a > b else b
                f = c if c > d else d
                e = e if e > f else f
                peak[j] = e if e > peak[j] else peak[j]
                k = about[j]
                a, b, c, d = a - k, b - k, c - k, d - k
                part[j] += (a + b) + (c + d)
                part2[j] += (a * a + b * b) + (c * c + d * d)
        for i in range(whole, stop):
            for j in range(units):
                a = z[i, j]
                count[j] += np.int32(_is_open(a, bounds, j))
                peak[j] = a if a > peak[j] else peak[j]
                a -= about[j]
                part[j] += a
                part2[j] += a * a
        for j in range(units):
            k, n = np.float64(about[j]), stop - start
            s = np.float64(part[j])
            active[j] += count[j]
            total[j] += s + n * k
            squares[j] += np.float64(part2[j]) + 2 * k * s + n * k * k
    return active, total, squares, peak.astype(np.float64)


@nb.njit(nogil=True, cache=True, fastmath={"nnan", "nsz", "reassoc"})
def _peak(row, peak):
    for p in range(row.size):
        peak = row[p] if row[p] > peak else peak
    return peak


@nb.njit(nogil=True, cache=True, fastmath=REORDER)
def _channels(z, bounds):
    """(A, F, P): along the positions; the maximum is looked for only where one is announced."""
    rows, units, positions = z.shape
    active, total, squares = np.zeros(units, np.int64), np.zeros(units), np.zeros(units)
    peak = np.full(units, -np.inf, z.dtype)
    zero, one = z.dtype.type(0), z.dtype.type(1)
    for i in range(rows):
        for j in range(units):
            k, highest = z[0, j, 0], peak[j]
            for start in range(0, positions, RUN):
                run = z[i, j, start : min(positions, start + RUN)]
                count, higher, part, part2 = zero, zero, zero, zero
                for p in range(run.size):
                    v = run[p]
                    count += one if _is_open(v, bounds, j) else zero
                    higher += one if v > highest else zero
                    v -= k
                    part += v
                    part2 += v * v
                if higher > zero:
                    highest = _peak(run, highest)
                wide, s, n = np.float64(k), np.float64(part), run.size
                active[j] += np.int64(count)
                total[j] += s + n * wide
                squares[j] += np.float64(part2) + 2 * wide * s + n * wide * wide
            peak[j] = highest
    return active, total, squares, peak.astype(np.float64)


@nb.njit(nogil=True, cache=True)
def _exact(z, bounds):
    """(A, F, P), value by value, in float64: right whatever NaN, infinities or huge values come."""
    rows, units, positions = z.shape
    active, non_finite = np.zeros(units, np.int64), np.zeros(units, np.int64)
    total, squares, peak = np.zeros(units), np.zeros(units), np.full(units, -np.inf)
    for i in range(rows):
        for j in range(units):
            for p in range(positions):
                v = z[i, j, p]
                if not np.isfinite(v):
                    non_finite[j] += 1
                    if not np.isnan(v):
                        huge = z.dtype.type(HUGE)
                        active[j] += _is_open(huge if v > 0 else -huge, bounds, j)
                    continue
                active[j] += _is_open(v, bounds, j)
                total[j] += v
                squares[j] += np.float64(v) * np.float64(v)
                peak[j] = max(peak[j], np.float64(v))
    return active, total, squares, peak, non_finite


@nb.njit(nogil=True, cache=True, fastmath=REORDER)
def _squares_rows(g):
    rows, units = g.shape
    squares = np.zeros(units)
    whole = rows // 4 * 4
    for i in range(0, whole, 4):
        for j in range(units):
            a, b = np.float64(g[i, j]), np.float64(g[i + 1, j])
            c, d = np.float64(g[i + 2, j]), np.float64(g[i + 3, j])
            squares[j] += (a * a + b * b) + (c * c + d * d)
    for i in range(whole, rows):
        for j in range(units):
            squares[j] += np.float64(g[i, j]) * np.float64(g[i, j])
    return squares


@nb.njit(nogil=True, cache=True, fastmath=REORDER)
def _squares_channels(g):
    rows, units, positions = g.shape
    squares = np.zeros(units)
    for i in range(rows):
        for j in range(units):
            sum_ = 0.0
            for p in range(positions):
                v = np.float64(g[i, j, p])
                sum_ += v * v
            squares[j] += sum_
    return squares
