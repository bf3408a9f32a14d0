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

import numba as nb
import numpy as np
import torch

from harness.kernels.accumulators import ACTIVE, INPUTS_SINCE_ACTIVE, MAX, NON_FINITE, SHIFT, SQUARES, SUM
from harness.kernels.numba_intrinsics import DOUBLE, REORDER, SINGLE, WHOLE, larger, values
from harness.kernels.traced import HUGE

TILE = 1024  # lanes: columns that are processed together
PITCH = TILE + 80  # distance between rows of the table; not a power of 2, so that a cache holds all rows
RUN = 256  # values that a lane adds up
LONG, BLOCK = 128, 8192  # positions from which a unit has one lane; the most positions in a run
FAR = 64.0  # if mean² around the shift exceeds this many variances, squares around it are inaccurate
# Rows of the table of lanes. Like all indices in the loops, they are unsigned: signed ones may be negative.
SUMS, SQUARED, LARGEST, OPENED, LOW, HIGH, HOLE_LOW, HOLE_HIGH, SHIFTS, UNIT_SHIFTS, LANES = (
    np.uint64(row * PITCH) for row in range(11)
)
ONE, TWO, FOUR = np.uint64(1), np.uint64(2), np.uint64(4)


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
    return d + e, d * d + e * e, larger(p, q), opened


@nb.njit(cache=True, fastmath=REORDER)
def _joined(a, b):
    return a[0] + b[0], a[1] + b[1], larger(a[2], b[2]), a[3] + b[3]


@nb.njit(cache=True, fastmath=REORDER)
def _add(found, table, j):
    table[SUMS + j] += found[0]
    table[SQUARED + j] += found[1]
    table[LARGEST + j] = larger(found[2], table[LARGEST + j])
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
        largest = larger(z[p], largest)
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
            table[there + LARGEST + j] = larger(table[a + LARGEST], table[b + LARGEST])
            table[there + OPENED + j] = table[a + OPENED] + table[b + OPENED]
        here, there = there, here
    for j in range(np.uint64(units if lanes > 1 else 0)):
        first = here + j * np.uint64(lanes)
        total, squares = table[first], table[first + SQUARED]
        largest, opened = table[first + LARGEST], table[first + OPENED]
        for k in range(first + ONE, first + np.uint64(lanes)):
            total += table[k]
            squares += table[k + SQUARED]
            largest = larger(table[k + LARGEST], largest)
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


@nb.njit(cache=True)
def _accumulate_at(address, call, same_forward, like):
    r = values(call, 9, WHOLE)
    units = r[2]
    bounds = values(r[3], r[4] * r[5], like).reshape(r[4], r[5])
    counts = values(r[6], 3 * units, WHOLE).reshape(3, units)
    sums = values(r[7], 5 * units, DOUBLE).reshape(5, units)
    _count(address, r[0], r[1], same_forward, bounds, values(r[8], LANES, like), counts, sums)


# Like `accumulate`, with all constant arguments in the record at the address `call`:
# numbers are cheaper to pass than arrays, and a small network's call takes longer than its loops.


@nb.njit(cache=True)
def _accumulate_single(address, call, same_forward):
    _accumulate_at(address, call, same_forward, SINGLE)


@nb.njit(cache=True)
def _accumulate_double(address, call, same_forward):
    _accumulate_at(address, call, same_forward, DOUBLE)


ACCUMULATE_AT = {torch.float32: _accumulate_single, torch.float64: _accumulate_double}


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
