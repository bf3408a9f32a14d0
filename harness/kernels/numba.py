"""Compiled loops (numba): one pass over a batch in memory, straight into a site's accumulators.

Legend: A rows (inputs), F units, P positions of one input; a batch is (A, F, P) in memory, without gaps;
counts (3, F) int64 and sums (5, F) float64 have the rows named in `accumulators.py`.

Neighbouring columns of F · P lie side by side in the lanes of a scratch table, which LLVM turns into vector
instructions; P of them are folded into their unit at the end. Lanes add up in the precision of z around a
typical value of their unit for at most RUN steps, units in float64. A unit whose sums are not finite, or
whose typical value was not typical, is counted again, value by value.
"""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np
import torch
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.numpy_support import carray
from torch import Tensor

from harness.activations.gates import Gate
from harness.kernels.accumulators import (
    ACTIVE,
    GRADIENT,
    INPUTS_SINCE_ACTIVE,
    MAX,
    NON_FINITE,
    SHIFT,
    SQUARES,
    SUM,
)
from harness.kernels.traced import HUGE

LIKE = {torch.float32: np.zeros(1, np.float32), torch.float64: np.zeros(1, np.float64)}
TILE = 512  # lanes: columns that are walked together
RUN = 256  # values that a lane adds up in its own precision
FEW, PIECE = 16, 128  # with fewer rows, the positions of a unit are cut into pieces of a row
LONG = 128  # positions whose gradients are added up unit by unit
FAR = 64.0  # times the variance: from there on the square of a mean spoils the sums around a shift
REORDER = {"reassoc", "contract", "nsz"}  # vectorised sums; NaN and infinities keep their meaning
V_SHIFT, V_SUM, V_SQUARES, V_MAX, V_LOW, V_HIGH, V_HOLE_LOW, V_HOLE_HIGH = range(8)  # rows of a scratch table
B_OPEN, B_N, B_SHIFT, B_SUM, B_SQUARES, B_MAX = range(6)  # rows of a batch's sums; N: its finite values


def _as_pointer(typing_context: Any, address: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), code


_void: Any = intrinsic(_as_pointer)


@nb.njit(cache=True)
def values(address, size, like):
    """The `size` values at an address, of the kind in the array `like`."""
    return carray(_void(address), size, like.dtype)


@nb.njit(cache=True, inline="always")
def _is_open(v, bounds, j, gated):
    if gated is None:
        return v > bounds[V_LOW, j]
    beside = (v < bounds[V_HOLE_LOW, j]) | (v > bounds[V_HOLE_HIGH, j])
    return (v > bounds[V_LOW, j]) & (v < bounds[V_HIGH, j]) & beside


@nb.njit(cache=True, fastmath=REORDER)
def _strip(z, rows, stride, width, table, opened, gated):
    """`rows` rows of `width` neighbouring values, `stride` apart, into the first lanes.

    Four rows at once, so that a lane is read and written once for four values. `gated` is None where the
    gate has but one bound, which the compiler knows by its type.
    """
    i = 0
    while i + 4 <= rows:
        a, b = z[i * stride :], z[(i + 1) * stride :]
        c, d = z[(i + 2) * stride :], z[(i + 3) * stride :]
        for j in range(width):
            p, q, r, s = a[j], b[j], c[j], d[j]
            opened[j] += (
                np.int32(_is_open(p, table, j, gated))
                + np.int32(_is_open(q, table, j, gated))
                + np.int32(_is_open(r, table, j, gated))
                + np.int32(_is_open(s, table, j, gated))
            )
            m, n = p if p > q else q, r if r > s else s
            m = m if m > n else n
            table[V_MAX, j] = m if m > table[V_MAX, j] else table[V_MAX, j]
            p -= table[V_SHIFT, j]
            q -= table[V_SHIFT, j]
            r -= table[V_SHIFT, j]
            s -= table[V_SHIFT, j]
            table[V_SUM, j] += (p + q) + (r + s)
            table[V_SQUARES, j] += (p * p + q * q) + (r * r + s * s)
        i += 4
    while i < rows:
        a = z[i * stride :]
        for j in range(width):
            p = a[j]
            opened[j] += np.int32(_is_open(p, table, j, gated))
            table[V_MAX, j] = p if p > table[V_MAX, j] else table[V_MAX, j]
            p -= table[V_SHIFT, j]
            table[V_SUM, j] += p
            table[V_SQUARES, j] += p * p
        i += 1


@nb.njit(cache=True)
def _walk(z, rows, stride, width, table, opened, simple):
    """A strip whose lanes begin at 0."""
    table[V_SUM, :width] = 0
    table[V_SQUARES, :width] = 0
    opened[:width] = 0
    if simple:
        _strip(z, rows, stride, width, table, opened, None)
    else:
        _strip(z, rows, stride, width, table, opened, True)


@nb.njit(cache=True, fastmath=REORDER)
def _typical(z, rows, positions, stride, unit, units, shift):
    """The median of three values of each unit, so that one that is far from the others is not taken."""
    b = z[rows // 2 * stride + positions // 2 :]
    c = z[(rows - 1) * stride + positions - 1 :]
    for j in range(units):
        at = (unit + j) * positions
        p, q, r = z[at], b[at], c[at]
        low, high = p if p < q else q, q if p < q else p
        high = r if r < high else high
        shift[j] = low if low > high else high


@nb.njit(cache=True)
def _set_lanes(table, bounds, shift, unit, positions, first, width):
    """Shifts and gates of the lanes: columns `first` … `first + width` of the units from `unit` on."""
    if positions == 1:
        table[V_SHIFT, :width] = shift[:width]
    else:
        for j in range(width):
            table[V_SHIFT, j] = shift[(first + j) // positions]
    table[V_MAX, :width] = table[V_SHIFT, :width]
    for k in range(bounds.shape[0]):
        if bounds.shape[1] == 1:
            table[V_LOW + k, :width] = bounds[k, 0]
        else:
            for j in range(width):
                table[V_LOW + k, j] = bounds[k, unit + (first + j) // positions]


@nb.njit(cache=True, fastmath=REORDER)
def _fold(table, opened, positions, first, width, batch):
    """The lanes into the batch's sums of their units."""
    if positions == 1:
        for j in range(width):
            batch[B_OPEN, j] += opened[j]
            batch[B_SUM, j] += np.float64(table[V_SUM, j])
            batch[B_SQUARES, j] += np.float64(table[V_SQUARES, j])
            largest = np.float64(table[V_MAX, j])
            batch[B_MAX, j] = largest if largest > batch[B_MAX, j] else batch[B_MAX, j]
        return
    j = 0
    while j < width:
        unit = (first + j) // positions
        stop = min(width, (unit + 1) * positions - first)
        count, total, squares, largest = 0, 0.0, 0.0, table[V_MAX, j]
        for k in range(j, stop):
            count += opened[k]
            total += np.float64(table[V_SUM, k])
            squares += np.float64(table[V_SQUARES, k])
            largest = table[V_MAX, k] if table[V_MAX, k] > largest else largest
        batch[B_OPEN, unit] += count
        batch[B_SUM, unit] += total
        batch[B_SQUARES, unit] += squares
        batch[B_MAX, unit] = max(batch[B_MAX, unit], np.float64(largest))
        j = stop


@nb.njit(cache=True)
def _exact(z, bounds, unit, batch):
    """A unit's values (A, P), one by one: right whatever NaN, infinities or huge values come."""
    huge, gated, k = z.dtype.type(HUGE), bounds.shape[0] == 4, unit % bounds.shape[1]
    batch[:] = 0
    batch[B_MAX] = -np.inf
    for i in range(z.shape[0]):
        for v in z[i]:
            held = min(max(v, -huge), huge) if np.isinf(v) else v
            is_open = held > bounds[0, k]
            if gated:
                is_open &= held < bounds[1, k] and (held < bounds[2, k] or held > bounds[3, k])
            batch[B_OPEN] += is_open
            if np.isfinite(v):
                if batch[B_N] == 0:
                    batch[B_SHIFT] = v
                d = np.float64(v) - batch[B_SHIFT]
                batch[B_N] += 1
                batch[B_SUM] += d
                batch[B_SQUARES] += d * d
                batch[B_MAX] = max(batch[B_MAX], np.float64(v))


@nb.njit(cache=True, inline="always")
def _fine(total, squares, share):
    """Whether a unit's sums are finite, and taken around a value that is not far from the others."""
    return (squares < np.inf) & (FAR * total * total * share <= (FAR - 1) * squares)


@nb.njit(cache=True, fastmath=REORDER)
def _commit(z, rows, positions, same_forward, bounds, batch, unit, here, counts, sums):
    """The batch's sums of `here` units from `unit` on into their accumulators."""
    n = rows * positions
    batch[B_N, :here] = n
    spoilt = False
    for j in range(here):
        spoilt |= not _fine(batch[B_SUM, j], batch[B_SQUARES, j], 1.0 / n)
    if spoilt:
        each = z[: rows * counts.shape[1] * positions].reshape(rows, counts.shape[1], positions)
        for j in range(here):
            if not _fine(batch[B_SUM, j], batch[B_SQUARES, j], 1.0 / n):
                _exact(each[:, unit + j], bounds, unit + j, batch[:, j])
                counts[NON_FINITE, unit + j] += n - np.int64(batch[B_N, j])
    for j in range(here):
        f, finite, before = unit + j, batch[B_N, j], sums[MAX, unit + j]
        shift = batch[B_SHIFT, j] if before == -np.inf else sums[SHIFT, f]
        d = batch[B_SHIFT, j] - shift
        sums[SHIFT, f] = shift
        sums[SUM, f] += batch[B_SUM, j] + finite * d
        squares = sums[SQUARES, f] + batch[B_SQUARES, j] + d * (2 * batch[B_SUM, j] + finite * d)
        sums[SQUARES, f] = squares if squares == squares else np.inf  # beyond what float64 holds
        sums[MAX, f] = batch[B_MAX, j] if batch[B_MAX, j] > before else before
    for j in range(here):
        opened, since = np.int64(batch[B_OPEN, j]), counts[INPUTS_SINCE_ACTIVE, unit + j]
        counts[ACTIVE, unit + j] += opened
        active = (opened > 0) | (same_forward & (since == 0))
        counts[INPUTS_SINCE_ACTIVE, unit + j] = 0 if active else since + n


@nb.njit(cache=True)
def accumulate(address, rows, positions, same_forward, bounds, counts, sums):
    """Count a batch of pre-activations in.

    Args:
        address: of the batch (A, F, P) in memory, of the precision of `bounds`.
        rows: A, at least 1.
        positions: P, at least 1.
        same_forward: a repeated call of the site in one forward of the model.
        bounds: the gate: (1, ·) of lows, or (4, ·) of lows, highs, and lows and highs of the hole; one column
            for all units or one for each.
        counts: (3, F) int64, changed in place.
        sums: (5, F) float64, changed in place.
    """
    units, simple = counts.shape[1], bounds.shape[0] == 1
    stride, step = units * positions, max(1, TILE // positions)
    z = values(address, rows * stride, bounds)
    lanes = min(TILE, min(step, units) * positions)
    table, opened = np.empty((9, lanes), bounds.dtype), np.empty(lanes, np.int32)
    batch, shift = np.empty((6, min(step, units))), table[8]
    for unit in range(0, units, step):
        here = min(step, units - unit)
        _typical(z, rows, positions, stride, unit, here, shift)
        batch[:, :here] = 0
        batch[B_SHIFT, :here] = shift[:here]
        batch[B_MAX, :here] = batch[B_SHIFT, :here]
        columns = here * positions
        if rows >= FEW or positions < TILE:
            for first in range(0, columns, TILE):
                width = min(TILE, columns - first)
                _set_lanes(table, bounds, shift, unit, positions, first, width)
                for start in range(0, rows, RUN):
                    place = z[start * stride + unit * positions + first :]
                    _walk(place, min(RUN, rows - start), stride, width, table, opened, simple)
                    _fold(table, opened, positions, first, width, batch)
        else:  # one unit; each of its few rows becomes rows of pieces
            _set_lanes(table, bounds, shift, unit, positions, 0, PIECE)
            for i in range(rows):
                row = z[i * stride + unit * positions :]
                for start in range(0, positions, RUN * PIECE):
                    size = min(RUN * PIECE, positions - start)
                    _walk(row[start:], size // PIECE, PIECE, PIECE, table, opened, simple)
                    _fold(table, opened, positions, 0, PIECE, batch)
                    if size % PIECE:
                        rest = row[start + size - size % PIECE :]
                        _walk(rest, 1, 0, size % PIECE, table, opened, simple)
                        _fold(table, opened, positions, 0, size % PIECE, batch)
        _commit(z, rows, positions, same_forward, bounds, batch, unit, here, counts, sums)


@nb.njit(cache=True, fastmath=REORDER)
def add_squares(address, rows, positions, like, sums):
    """Add the squares of a gradient (A, F, P) at `address` to `sums` (F,): exactly 0 iff all are 0.

    `like` is an array of its precision; the squares are taken and added in float64.
    """
    units, width = len(sums), len(sums) * positions
    z = values(address, rows * width, like)
    if positions >= LONG:
        for i in range(rows):
            for j in range(units):
                total, row = 0.0, z[i * width + j * positions :]
                for p in range(positions):
                    total += np.float64(row[p]) * np.float64(row[p])
                sums[j] += total
    elif positions == 1:
        _square_columns(z, rows, width, sums)
    else:
        total = np.zeros(width)
        _square_columns(z, rows, width, total)
        for j in range(units):
            for p in range(j * positions, (j + 1) * positions):
                sums[j] += total[p]


@nb.njit(cache=True, fastmath=REORDER)
def _square_columns(z, rows, width, total):
    i = 0
    while i + 4 <= rows:
        a, b = z[i * width :], z[(i + 1) * width :]
        c, d = z[(i + 2) * width :], z[(i + 3) * width :]
        for j in range(width):
            p, q, r, s = np.float64(a[j]), np.float64(b[j]), np.float64(c[j]), np.float64(d[j])
            total[j] += (p * p + q * q) + (r * r + s * s)
        i += 4
    while i < rows:
        a = z[i * width :]
        for j in range(width):
            total[j] += np.float64(a[j]) * np.float64(a[j])
        i += 1


WHOLE, SINGLE, DOUBLE = np.zeros(1, np.int64), np.zeros(1, np.float32), np.zeros(1, np.float64)


@nb.njit(cache=True)
def _accumulate_at(address, call, same_forward, like):
    r = values(call, 8, WHOLE)
    units = r[2]
    bounds = values(r[3], r[4] * r[5], like).reshape(r[4], r[5])
    counts = values(r[6], 3 * units, WHOLE).reshape(3, units)
    sums = values(r[7], 5 * units, DOUBLE).reshape(5, units)
    accumulate(address, r[0], r[1], same_forward, bounds, counts, sums)


@nb.njit(cache=True)
def _add_squares_at(address, call, like):
    r = values(call, 8, WHOLE)
    units = r[2]
    sums = values(r[7], 5 * units, DOUBLE)[GRADIENT * units : (GRADIENT + 1) * units]
    add_squares(address, r[0], r[1], like, sums)


# As `accumulate` and `add_squares`, with all that stays the same in the record at the address `call`: numbers
# cost less to hand over than arrays, and a small network's call takes longer than its loops.


@nb.njit(cache=True)
def _accumulate_single(address, call, same_forward):
    _accumulate_at(address, call, same_forward, SINGLE)


@nb.njit(cache=True)
def _accumulate_double(address, call, same_forward):
    _accumulate_at(address, call, same_forward, DOUBLE)


@nb.njit(cache=True)
def _add_squares_single(address, call):
    _add_squares_at(address, call, SINGLE)


@nb.njit(cache=True)
def _add_squares_double(address, call):
    _add_squares_at(address, call, DOUBLE)


ACCUMULATE_AT = {torch.float32: _accumulate_single, torch.float64: _accumulate_double}
ADD_SQUARES_AT = {torch.float32: _add_squares_single, torch.float64: _add_squares_double}


def record_of(
    rows: int, positions: int, bounds: np.ndarray, counts: np.ndarray, sums: np.ndarray
) -> np.ndarray:
    """The record of a call, int64: sizes, and addresses of arrays that must live as long as it does."""
    sizes = (rows, positions, counts.shape[1])
    places = (bounds.ctypes.data, *bounds.shape, counts.ctypes.data, sums.ctypes.data)
    return np.array((*sizes, *places), np.int64)


@nb.njit(cache=True)
def accumulate_members(address, rows, bounds, counts, sums):
    """Count a batch of K members of a stack in: (K, A, F) in memory.

    Args:
        address: of the batch.
        rows: A, at least 1.
        bounds: (K, 1 or 4, ·): the gate of each member, as in `accumulate`.
        counts: (K, 3, F) int64, changed in place.
        sums: (K, 5, F) float64, changed in place.
    """
    size = rows * counts.shape[2] * bounds.itemsize
    for k in range(len(counts)):
        accumulate(address + k * size, rows, 1, False, bounds[k], counts[k], sums[k])


@nb.njit(cache=True)
def add_squares_members(address, rows, like, sums):
    """Add the squares of a gradient (K, A, F) at `address` to row GRADIENT of `sums` (K, 5, F)."""
    size = rows * sums.shape[2] * like.itemsize
    for k in range(len(sums)):
        add_squares(address + k * size, rows, 1, like, sums[k, GRADIENT])


def bounds_of(gate: Gate, dtype: torch.dtype) -> np.ndarray:
    """The gate as the loops take it, in the precision of z: lows (1, units or 1), or all bounds (4, 1)."""
    kind = LIKE[dtype].dtype
    if isinstance(gate.low, Tensor):
        return gate.low.detach().cpu().numpy().astype(kind, copy=False).reshape(1, -1)
    if gate.high == np.inf and not gate.has_hole:
        return np.full((1, 1), gate.low, kind)
    return np.array(gate, kind).reshape(4, 1)
