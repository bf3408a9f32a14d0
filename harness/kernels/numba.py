"""Compiled loops (numba): one pass over a batch in memory, straight into a site's accumulators.

Notation: A rows (inputs), F units, P positions per input; a batch is (A, F, P), contiguous; counts (3, F)
int64 and sums (5, F) float64 have the rows named in `accumulators.py`.

A batch is processed in runs of at most RUN rows, TILE lanes and BLOCK positions, each as if it were a batch
of its own. Neighbouring columns of F · P occupy neighbouring lanes of a table, which LLVM vectorises; the P
lanes of a unit are folded into one at the end. If P is large, a unit has one lane, which adds up its
positions one after the other. Lanes accumulate in the precision of z around a typical value of their unit,
accumulators in float64. A unit whose sums are not finite, or whose typical value turns out not to be
typical, is counted again value by value.
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
TILE = 1024  # lanes: columns that are processed together
PITCH = TILE + 80  # distance between rows of the table; not a power of 2, so that a cache holds all rows
RUN = 256  # values that a lane adds up
LONG, BLOCK = 128, 8192  # positions from which a unit has one lane; the most positions in a run
FAR = 64.0  # if mean² around the shift exceeds this many variances, squares around it are inaccurate
REORDER = {"reassoc", "contract", "nsz"}  # allows vectorised sums; NaN and infinities keep their meaning
# Rows of the table of lanes. Like all indices in the loops, they are unsigned: signed ones may be negative.
SUMS, SQUARED, LARGEST, OPENED, LOW, HIGH, HOLE_LOW, HOLE_HIGH, SHIFTS, UNIT_SHIFTS, LANES = (
    np.uint64(row * PITCH) for row in range(11)
)
ONE, TWO, FOUR = np.uint64(1), np.uint64(2), np.uint64(4)


def _as_pointer(typing_context: Any, address: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), code


def _as_maximum(typing_context: Any, a: Any, b: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        no_nan = ("nnan", "nsz")
        return builder.select(builder.fcmp_ordered(">", *args, flags=no_nan), *args, flags=no_nan)

    return a(a, a), code


_void: Any = intrinsic(_as_pointer)
# The larger of two, undefined if one is NaN: otherwise LLVM would not vectorise a maximum. A unit with a NaN
# has a NaN sum and is counted again anyway.
_larger: Any = intrinsic(_as_maximum)


@nb.njit(cache=True)
def values(address, size, like):
    """The `size` values at an address, with the dtype of the array `like`."""
    return carray(_void(address), size, like.dtype)


@nb.njit(cache=True)
def _is_open(v, table, j, gated):
    """1 if the gate is open, else 0, in the dtype of v, so that lanes count along with their sums."""
    one, zero = table.dtype.type(1), table.dtype.type(0)
    if gated is None:
        return one if v > table[LOW + j] else zero
    beside = (v < table[HOLE_LOW + j]) | (v > table[HOLE_HIGH + j])
    return one if (v > table[LOW + j]) & (v < table[HIGH + j]) & beside else zero


@nb.njit(cache=True, fastmath=REORDER)
def _two(p, q, table, j, gated):
    """Sum and squares around the lane's shift, maximum, and number of open gates of two values."""
    opened = _is_open(p, table, j, gated) + _is_open(q, table, j, gated)
    d, e = p - table[SHIFTS + j], q - table[SHIFTS + j]
    return d + e, d * d + e * e, _larger(p, q), opened


@nb.njit(cache=True, fastmath=REORDER)
def _joined(a, b):
    return a[0] + b[0], a[1] + b[1], _larger(a[2], b[2]), a[3] + b[3]


@nb.njit(cache=True, fastmath=REORDER)
def _add(found, table, j):
    table[SUMS + j] += found[0]
    table[SQUARED + j] += found[1]
    table[LARGEST + j] = _larger(found[2], table[LARGEST + j])
    table[OPENED + j] += found[3]


@nb.njit(cache=True, fastmath=REORDER)
def _strip(z, at, rows, stride, width, table, gated):
    """Add `rows` rows of `width` neighbouring values, `stride` apart, to the lanes.

    Processes eight rows at once, so that a lane is read and written once per eight values. `gated` is None if
    the gate has only a lower bound; the compiler specialises on its type.
    """
    s, width = np.uint64(stride), np.uint64(width)
    for i in range(0, rows - 7, 8):
        k = np.uint64(at + i * stride)
        q, r = k + TWO * s, k + FOUR * s
        t = r + TWO * s
        for j in range(width):
            a = _two(z[k + j], z[k + s + j], table, j, gated)
            b = _two(z[q + j], z[q + s + j], table, j, gated)
            c = _two(z[r + j], z[r + s + j], table, j, gated)
            d = _two(z[t + j], z[t + s + j], table, j, gated)
            _add(_joined(_joined(a, b), _joined(c, d)), table, j)
    for i in range(rows // 8 * 8, rows):
        k = np.uint64(at + i * stride)
        for j in range(width):
            p = z[k + j]
            d = p - table[SHIFTS + j]
            _add((d, d * d, p, _is_open(p, table, j, gated)), table, j)


@nb.njit(cache=True, fastmath=REORDER)
def _along(z, at, positions, table, j, gated):
    """Add neighbouring values of one unit to its lane."""
    total = squares = opened = table.dtype.type(0)
    largest = z[at]
    for p in range(at, at + positions):
        d = z[p] - table[SHIFTS + j]
        total += d
        squares += d * d
        largest = _larger(z[p], largest)
        opened += _is_open(z[p], table, j, gated)
    _add((total, squares, largest, opened), table, j)


@nb.njit(cache=True, fastmath=REORDER)
def _set_lanes(z, at, rows, positions, stride, apart, bounds, unit, units, lanes, table):
    """Clear the lanes and set their shifts to a median of three values, robust against one outlier."""
    width, apart, lanes = np.uint64(units * lanes), np.uint64(apart), np.uint64(lanes)
    a, b = np.uint64(at), np.uint64(at + rows // 2 * stride + positions // 2)
    c = np.uint64(at + (rows - 1) * stride + positions - 1)
    for j in range(np.uint64(units)):
        p, q, r = z[a + j * apart], z[b + j * apart], z[c + j * apart]
        low, high = p if p < q else q, q if p < q else p
        high = r if r < high else high
        table[UNIT_SHIFTS + j] = low if low > high else high
    for j in range(np.uint64(units)):
        for k in range(j * lanes, j * lanes + lanes):
            table[SHIFTS + k] = table[UNIT_SHIFTS + j]
    for j in range(width):
        table[SUMS + j] = 0
        table[SQUARED + j] = 0
        table[LARGEST + j] = table[SHIFTS + j]
        table[OPENED + j] = 0
    for row in range(bounds.shape[0]):
        to = np.uint64(row * PITCH) + LOW
        if bounds.shape[1] == 1:
            for j in range(width):
                table[to + j] = bounds[row, 0]
        else:
            for j in range(np.uint64(units)):
                for k in range(j * lanes, j * lanes + lanes):
                    table[to + k] = bounds[row, np.uint64(unit) + j]


@nb.njit(cache=True, fastmath=REORDER)
def _fold(table, units, lanes):
    """Fold the lanes of each unit into one by repeated halving; returns the first row of the result."""
    here, there = SUMS, LOW
    while lanes % 2 == 0:
        lanes //= 2
        for j in range(np.uint64(units * lanes)):
            a, b = here + TWO * j, here + TWO * j + ONE
            table[there + j] = table[a] + table[b]
            table[there + SQUARED + j] = table[a + SQUARED] + table[b + SQUARED]
            table[there + LARGEST + j] = _larger(table[a + LARGEST], table[b + LARGEST])
            table[there + OPENED + j] = table[a + OPENED] + table[b + OPENED]
        here, there = there, here
    for j in range(np.uint64(units if lanes > 1 else 0)):
        first = here + j * np.uint64(lanes)
        total, squares = table[first], table[first + SQUARED]
        largest, opened = table[first + LARGEST], table[first + OPENED]
        for k in range(first + ONE, first + np.uint64(lanes)):
            total += table[k]
            squares += table[k + SQUARED]
            largest = _larger(table[k + LARGEST], largest)
            opened += table[k + OPENED]
        table[here + j], table[here + SQUARED + j] = total, squares
        table[here + LARGEST + j], table[here + OPENED + j] = largest, opened
    return here


@nb.njit(cache=True)
def _exact(z, at, rows, positions, stride, bounds, k):
    """Sums of a unit's values, one by one: correct even for NaN, infinities and huge values."""
    huge, gated = z.dtype.type(HUGE), bounds.shape[0] == 4
    finite, opened, shift, total, squares, largest = 0, 0, 0.0, 0.0, 0.0, -np.inf
    for i in range(rows):
        for v in z[at + i * stride : at + i * stride + positions]:
            held = min(max(v, -huge), huge) if np.isinf(v) else v
            is_open = held > bounds[0, k]
            if gated:
                is_open &= held < bounds[1, k] and (held < bounds[2, k] or held > bounds[3, k])
            opened += is_open
            if np.isfinite(v):
                if finite == 0:
                    shift = np.float64(v)
                d = np.float64(v) - shift
                finite += 1
                total += d
                squares += d * d
                largest = max(largest, np.float64(v))
    return finite, opened, shift, total, squares, largest


@nb.njit(cache=True, fastmath=REORDER)
def _commit(f, finite, opened, shift, total, squares, largest, n, same_forward, counts, sums):
    """Add sums of n values of unit f, `finite` of which are finite, to its accumulators."""
    before, since = sums[MAX, f], counts[INPUTS_SINCE_ACTIVE, f]
    base = shift if before == -np.inf else sums[SHIFT, f]
    d = shift - base
    sums[SHIFT, f] = base
    sums[SUM, f] += total + finite * d
    squares = sums[SQUARES, f] + squares + d * (2 * total + finite * d)
    sums[SQUARES, f] = squares if squares == squares else np.inf  # exceeds the range of float64
    sums[MAX, f] = largest if largest > before else before
    counts[ACTIVE, f] += opened
    active = (opened > 0) | (same_forward & (since == 0))
    counts[INPUTS_SINCE_ACTIVE, f] = 0 if active else since + n


@nb.njit(cache=True, inline="always")
def _fine(total, squares, share):
    """Whether a unit's sums are finite and were taken around a typical value."""
    return (squares < np.inf) & (FAR * total * total * share <= (FAR - 1) * squares)


@nb.njit(cache=True)
def _add_values(z, at, rows, positions, stride, apart, units, lanes, table, gated):
    if lanes == positions:
        _strip(z, at, rows, stride, units * lanes, table, gated)
    else:
        for i in range(rows):
            for j in range(units):
                place = np.uint64(at + i * stride + j * apart)
                _along(z, place, np.uint64(positions), table, np.uint64(j), gated)


@nb.njit(cache=True, fastmath=REORDER)
def _run(
    z, at, rows, positions, stride, apart, unit, units, lanes, same_forward, bounds, table, counts, sums
):
    """Count `rows` rows of some positions of some units, whose lanes fit into the table."""
    _set_lanes(z, at, rows, positions, stride, apart, bounds, unit, units, lanes, table)
    if bounds.shape[0] == 1:
        _add_values(z, at, rows, positions, stride, apart, units, lanes, table, None)
    else:
        _add_values(z, at, rows, positions, stride, apart, units, lanes, table, True)
    here, n, spoilt = _fold(table, units, lanes), rows * positions, False
    share = 1.0 / n
    for j in range(np.uint64(units)):
        spoilt |= not _fine(np.float64(table[here + j]), np.float64(table[here + SQUARED + j]), share)
    if not spoilt:
        for j in range(np.uint64(units)):
            shift, opened = np.float64(table[UNIT_SHIFTS + j]), np.int64(table[here + OPENED + j])
            total, squares = np.float64(table[here + j]), np.float64(table[here + SQUARED + j])
            largest = np.float64(table[here + LARGEST + j])
            f = np.uint64(unit) + j
            _commit(f, n, opened, shift, total, squares, largest, n, same_forward, counts, sums)
        return
    for j in range(units):
        f, k = unit + j, np.uint64(j)
        shift, opened = np.float64(table[UNIT_SHIFTS + k]), np.int64(table[here + OPENED + k])
        total, squares = np.float64(table[here + k]), np.float64(table[here + SQUARED + k])
        finite, largest = n, np.float64(table[here + LARGEST + k])
        if not _fine(total, squares, share):
            found = _exact(z, at + j * apart, rows, positions, stride, bounds, f % bounds.shape[1])
            finite, opened, shift, total, squares, largest = found
            counts[NON_FINITE, f] += n - finite
        _commit(f, finite, opened, shift, total, squares, largest, n, same_forward, counts, sums)


@nb.njit(cache=True)
def _count(address, rows, positions, same_forward, bounds, table, counts, sums):
    units = counts.shape[1]
    stride, block = units * positions, min(positions, BLOCK)
    z = values(address, rows * stride, bounds)
    lanes = 1 if positions >= LONG else positions
    some = TILE // lanes
    for i in range(0, rows, RUN):
        for p in range(0, positions, block):
            again = same_forward | (i > 0) | (p > 0)
            size = min(block, positions - p)
            for unit in range(0, units, some):
                at = i * stride + unit * positions + p
                here, less = min(some, units - unit), min(RUN, rows - i)
                _run(
                    z,
                    at,
                    less,
                    size,
                    stride,
                    positions,
                    unit,
                    here,
                    lanes,
                    again,
                    bounds,
                    table,
                    counts,
                    sums,
                )


@nb.njit(cache=True)
def accumulate(address, rows, positions, same_forward, bounds, counts, sums):
    """Count a batch of pre-activations.

    Args:
        address: address of the batch (A, F, P) in memory, in the precision of `bounds`.
        rows: A, at least 1.
        positions: P, at least 1.
        same_forward: whether the site was called before in the same forward of the model.
        bounds: the gate: (1, ·) of lows, or (4, ·) of lows, highs, and lows and highs of the hole; one column
            for all units or one per unit.
        counts: (3, F) int64, changed in place.
        sums: (5, F) float64, changed in place.
    """
    _count(address, rows, positions, same_forward, bounds, np.empty(LANES, bounds.dtype), counts, sums)


@nb.njit(cache=True, fastmath=REORDER)
def add_squares(address, rows, positions, like, sums):
    """Add the squares of a gradient (A, F, P) at `address` to `sums` (F,): exactly 0 iff all are 0.

    `like` is an array with its dtype; squares are computed and added in float64.
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
    r = values(call, 9, WHOLE)
    units = r[2]
    bounds = values(r[3], r[4] * r[5], like).reshape(r[4], r[5])
    counts = values(r[6], 3 * units, WHOLE).reshape(3, units)
    sums = values(r[7], 5 * units, DOUBLE).reshape(5, units)
    _count(address, r[0], r[1], same_forward, bounds, values(r[8], LANES, like), counts, sums)


@nb.njit(cache=True)
def _add_squares_at(address, call, like):
    r = values(call, 8, WHOLE)
    units = r[2]
    sums = values(r[7], 5 * units, DOUBLE)[GRADIENT * units : (GRADIENT + 1) * units]
    add_squares(address, r[0], r[1], like, sums)


# Like `accumulate` and `add_squares`, with all constant arguments in the record at the address `call`:
# numbers are cheaper to pass than arrays, and a small network's call takes longer than its loops.


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


SCRATCH = np.empty(int(LANES) + 8)
SCRATCH = SCRATCH[-SCRATCH.ctypes.data % 64 // 8 :]  # shared by all calls: the loops hold the GIL


def record_of(
    rows: int, positions: int, bounds: np.ndarray, counts: np.ndarray, sums: np.ndarray
) -> np.ndarray:
    """The record of a call, int64: sizes, and addresses of arrays, which must outlive it."""
    sizes = (rows, positions, counts.shape[1])
    places = (bounds.ctypes.data, *bounds.shape, counts.ctypes.data, sums.ctypes.data, SCRATCH.ctypes.data)
    return np.array((*sizes, *places), np.int64)


@nb.njit(cache=True)
def accumulate_members(address, rows, bounds, counts, sums):
    """Count a batch of K members of a stack: (K, A, F) in memory.

    Args:
        address: address of the batch.
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
    """The gate in the form the loops expect, in the precision of z: lows (1, units or 1), or (4, 1)."""
    kind = LIKE[dtype].dtype
    if isinstance(gate.low, Tensor):
        return gate.low.detach().cpu().numpy().astype(kind, copy=False).reshape(1, -1)
    if gate.high == np.inf and not gate.has_hole:
        return np.full((1, 1), gate.low, kind)
    return np.array(gate, kind).reshape(4, 1)
