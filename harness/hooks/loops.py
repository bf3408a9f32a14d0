"""Compiled loops (numba): one pass over a batch in memory, straight into a site's running sums.

Legend: A rows (inputs), F units, P positions of one input, W = F · P columns; counts (3, F) int64 and sums
(4, F) float64 have the rows named in `statistics.py`. Values are summed in their own precision around a
per-column reference for at most RUN rows, then carried in float64; a batch with a sum that is not finite is
counted again, value by value.
"""

from __future__ import annotations

import numba as nb
import numpy as np
from numba.extending import overload

ACTIVE, NON_FINITE, SILENT = 0, 1, 2  # rows of counts
TOTAL, SQUARES, PEAK, GRADIENT = 0, 1, 2, 3  # rows of sums
RUN = 512
HUGE = 1e38  # stands for an infinite z when its gate is asked for
SMALL, LARGE = 1e-25, 1e30  # sums of squares beyond which float32 could have lost something
REORDER = {"reassoc", "contract", "nsz"}  # vectorised sums; NaN and infinities keep their meaning


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
def _columns(z, bounds):
    """(A, W) → open count, sum, sum of squares and maximum per column; eight rows at a time."""
    rows, width = z.shape
    active, total, squares = np.zeros(width, np.int64), np.zeros(width), np.zeros(width)
    count, part, part2 = np.empty(width, np.int32), np.empty(width, z.dtype), np.empty(width, z.dtype)
    peak = z[0].copy()
    about = z[0].copy()
    for start in range(0, rows, RUN):
        stop = min(rows, start + RUN)
        whole = start + (stop - start) // 8 * 8
        count[:], part[:], part2[:] = 0, 0, 0
        for i in range(start, whole, 8):
            for j in range(width):
                a, b, c, d = z[i, j], z[i + 1, j], z[i + 2, j], z[i + 3, j]
                e, f, g, h = z[i + 4, j], z[i + 5, j], z[i + 6, j], z[i + 7, j]
                count[j] += (
                    np.int32(_is_open(a, bounds, j))
                    + np.int32(_is_open(b, bounds, j))
                    + np.int32(_is_open(c, bounds, j))
                    + np.int32(_is_open(d, bounds, j))
                ) + (
                    np.int32(_is_open(e, bounds, j))
                    + np.int32(_is_open(f, bounds, j))
                    + np.int32(_is_open(g, bounds, j))
                    + np.int32(_is_open(h, bounds, j))
                )
                m = a if a > b else b
                n = c if c > d else d
                o = e if e > f else f
                p = g if g > h else h
                m = m if m > n else n
                o = o if o > p else p
                m = m if m > o else o
                peak[j] = m if m > peak[j] else peak[j]
                k = about[j]
                a, b, c, d = a - k, b - k, c - k, d - k
                e, f, g, h = e - k, f - k, g - k, h - k
                part[j] += ((a + b) + (c + d)) + ((e + f) + (g + h))
                part2[j] += ((a * a + b * b) + (c * c + d * d)) + ((e * e + f * f) + (g * g + h * h))
        for i in range(whole, stop):
            for j in range(width):
                a = z[i, j]
                count[j] += np.int32(_is_open(a, bounds, j))
                peak[j] = a if a > peak[j] else peak[j]
                a -= about[j]
                part[j] += a
                part2[j] += a * a
        for j in range(width):
            k, n = np.float64(about[j]), stop - start
            s = np.float64(part[j])
            active[j] += count[j]
            total[j] += s + n * k
            squares[j] += np.float64(part2[j]) + 2 * k * s + n * k * k
    return active, total, squares, peak


@nb.njit(nogil=True, cache=True)
def _exact(z, bounds):
    """As `_columns`, value by value: right whatever NaN, infinities or huge values come."""
    rows, width = z.shape
    active, non_finite = np.zeros(width, np.int64), np.zeros(width, np.int64)
    total, squares, peak = np.zeros(width), np.zeros(width), np.full(width, -np.inf)
    huge = z.dtype.type(HUGE)
    for i in range(rows):
        for j in range(width):
            v = z[i, j]
            if np.isfinite(v):
                active[j] += _is_open(v, bounds, j)
                total[j] += v
                squares[j] += np.float64(v) * np.float64(v)
                peak[j] = max(peak[j], np.float64(v))
            else:
                non_finite[j] += 1
                if not np.isnan(v):
                    active[j] += _is_open(huge if v > 0 else -huge, bounds, j)
    return active, non_finite, total, squares, peak


@nb.njit(nogil=True, cache=True)
def accumulate(z, bounds, positions, again, counts, sums):
    """Count a batch (A, W) in; `again`: a repeated call of the site in one forward of the model."""
    rows, width = z.shape
    active, total, squares, highest = _columns(z, bounds)
    peak = highest.astype(np.float64)
    non_finite = np.zeros(1, np.int64)
    whole = np.isfinite(squares.sum())
    if not whole:
        active, non_finite, total, squares, peak = _exact(z, bounds)
    n = rows * positions
    for j in range(width // positions):
        opened, bad = 0, 0
        for w in range(j * positions, (j + 1) * positions):
            opened += active[w]
            sums[TOTAL, j] += total[w]
            sums[SQUARES, j] += squares[w]
            sums[PEAK, j] = max(sums[PEAK, j], peak[w])
            if not whole:
                bad += non_finite[w]
        counts[ACTIVE, j] += opened
        counts[NON_FINITE, j] += bad
        loud = opened > 0 or (again and counts[SILENT, j] == 0)
        counts[SILENT, j] = 0 if loud else counts[SILENT, j] + n


@nb.njit(nogil=True, cache=True, fastmath=REORDER)
def accumulate_squares(g, sums):
    """Add the squares of a gradient (A, F) to `sums` (F,), in float64: exactly 0 iff all are 0."""
    rows, units = g.shape
    whole = rows // 4 * 4
    for i in range(0, whole, 4):
        for j in range(units):
            a, b = np.float64(g[i, j]), np.float64(g[i + 1, j])
            c, d = np.float64(g[i + 2, j]), np.float64(g[i + 3, j])
            sums[j] += (a * a + b * b) + (c * c + d * d)
    for i in range(whole, rows):
        for j in range(units):
            sums[j] += np.float64(g[i, j]) * np.float64(g[i, j])


@nb.njit(nogil=True, cache=True, fastmath=REORDER)
def _sum_of_squares(run):
    """Squares in their own precision; again in float64 where the sum is small or not finite."""
    part = run.dtype.type(0)
    for p in range(run.size):
        part += run[p] * run[p]
    exact = np.float64(part)
    if not (SMALL < exact < LARGE):
        exact = 0.0
        for p in range(run.size):
            exact += np.float64(run[p]) * np.float64(run[p])
    return exact


@nb.njit(nogil=True, cache=True, fastmath=REORDER)
def accumulate_squares_inner(g, sums):
    """Likewise for (A, F, P)."""
    rows, units, positions = g.shape
    for i in range(rows):
        for j in range(units):
            for start in range(0, positions, RUN):
                sums[j] += _sum_of_squares(g[i, j, start : min(positions, start + RUN)])


@nb.njit(nogil=True, cache=True, fastmath=REORDER)
def row_squares(weight, bias):
    """Squares of each unit's row of a weight (F, K) and of its bias (F,), which may be empty."""
    units, inputs = weight.shape
    squares = np.zeros(units)
    for j in range(units):
        for start in range(0, inputs, RUN):
            squares[j] += _sum_of_squares(weight[j, start : min(inputs, start + RUN)])
    for j in range(bias.size):
        squares[j] += np.float64(bias[j]) * np.float64(bias[j])
    return squares
