"""Compiled loops (numba): one pass over a batch in memory, straight into a site's running sums.

Legend: A rows (inputs), F units, P positions of one input, W = F · P columns; counts (3, F) int64 and sums
(4, F) float64 have the rows named in `statistics.py`. A batch is (A, F, P) in memory, without gaps.

Short P: neighbouring columns lie side by side in the lanes, P of them are folded into their unit at the end.
Long P: the positions of one unit lie side by side. Values are summed in their own precision around a first
value of their unit for at most RUN steps, then carried in float64; a batch with a sum that is not finite is
counted again, value by value.
"""

from __future__ import annotations

import numba as nb
import numpy as np
from numba.np.numpy_support import carray

from harness.kernels import simd as lanes
from harness.kernels.simd import LANES, TILE, pointer

ACTIVE, NON_FINITE, SILENT = 0, 1, 2  # rows of counts
TOTAL, SQUARES, PEAK, GRADIENT = 0, 1, 2, 3  # rows of sums
OPENED = 3  # row of a batch's sums, beside TOTAL, SQUARES, PEAK
RUN = 256
BLOCK = 16  # rows that are walked together: as many as a processor fetches ahead
LONG = 128  # positions from which a unit fills its lanes alone
HUGE = 1e38  # stands for an infinite z when its gate is asked for
REORDER = {"reassoc", "contract", "nsz"}  # vectorised sums; NaN and infinities keep their meaning


@nb.njit(nogil=True, cache=True, fastmath=REORDER)
def _fold(scratch, lane_counts, first, width, steps, batch, unit):
    """Lanes `first` … `first + width` of one unit into a batch's sums; each lane had `steps` values."""
    opened, total, squares = 0, 0.0, 0.0
    peak = scratch[lanes.PEAK, first]
    k = np.float64(scratch[lanes.SHIFT, first])
    for j in range(first, first + width):
        opened += lane_counts[0, j]
        total += np.float64(scratch[lanes.TOTAL, j])
        squares += np.float64(scratch[lanes.SQUARES, j])
        peak = max(peak, scratch[lanes.PEAK, j])
    n = steps * width
    batch[OPENED, unit] += opened
    batch[TOTAL, unit] += total + n * k
    batch[SQUARES, unit] += squares + 2 * k * total + n * k * k
    batch[PEAK, unit] = max(batch[PEAK, unit], np.float64(peak))


@nb.njit(nogil=True, cache=True, fastmath=REORDER)
def _fold_each(scratch, lane_counts, width, steps, batch):
    """As `_fold`, where every lane is a unit of its own."""
    for j in range(width):
        k, total = np.float64(scratch[lanes.SHIFT, j]), np.float64(scratch[lanes.TOTAL, j])
        batch[OPENED, j] += lane_counts[0, j]
        batch[TOTAL, j] += total + steps * k
        batch[SQUARES, j] += np.float64(scratch[lanes.SQUARES, j]) + 2 * k * total + steps * k * k
        peak = np.float64(scratch[lanes.PEAK, j])
        batch[PEAK, j] = peak if peak > batch[PEAK, j] else batch[PEAK, j]


@nb.njit(nogil=True, cache=True)
def _set_bounds(scratch, bounds, unit, units, width):
    """The gates of `units` units from `unit` on, for `width` lanes each."""
    for k in range(bounds.shape[0]):
        if bounds.shape[1] == 1:
            scratch[lanes.LOW + k, : units * width] = bounds[k, 0]
        else:
            for j in range(units):
                for lane in range(j * width, (j + 1) * width):
                    scratch[lanes.LOW + k, lane] = bounds[k, unit + j]


@nb.njit(nogil=True, cache=True)
def _strip(z, steps, stride, on, simple, scratch, counts):
    if on == LANES:
        if simple:
            lanes.observe_low(z, steps, stride, on, scratch, counts)
        else:
            lanes.observe_gate(z, steps, stride, on, scratch, counts)
    elif simple:
        lanes.observe_low_part(z, steps, stride, on, scratch, counts)
    else:
        lanes.observe_gate_part(z, steps, stride, on, scratch, counts)


@nb.njit(nogil=True, cache=True)
def _columns(address, rows, positions, again, bounds, counts, sums):
    """Short P: the columns of a tile of units side by side."""
    units, size, step = counts.shape[1], bounds.itemsize, max(1, TILE // positions)
    batch = np.empty((4, TILE))
    used = min(TILE, (min(step, units) * positions + LANES - 1) // LANES * LANES)
    scratch, opened = np.empty((8, TILE), bounds.dtype), np.empty((2, TILE), np.int32)
    values, whole = scratch.ctypes.data, opened.ctypes.data
    opened[1, :used] = 1
    simple = bounds.shape[0] == 1
    for tile in range(0, units, step):
        here, tile_units = min(step, units - tile), min(step, units - tile) * positions
        first = carray(pointer(address + tile * positions * size, bounds), tile_units)
        for j in range(here):  # one shift for all positions of a unit
            for p in range(j * positions, (j + 1) * positions):
                scratch[lanes.SHIFT, p] = first[j * positions]
        scratch[lanes.PEAK, :used] = scratch[lanes.SHIFT, :used]
        _set_bounds(scratch, bounds, tile, here, positions)
        batch[:, :here] = 0
        batch[PEAK, :here] = -np.inf
        for start in range(0, rows, RUN):
            stop = min(rows, start + RUN)
            opened[0, :used] = 0
            scratch[lanes.TOTAL, :used] = 0
            scratch[lanes.SQUARES, :used] = 0
            for block in range(start, stop, BLOCK):
                for strip in range(0, tile_units, LANES):
                    place = address + ((block * units + tile) * positions + strip) * size
                    _strip(
                        pointer(place, bounds),
                        min(BLOCK, stop - block),
                        units * positions,
                        min(LANES, tile_units - strip),
                        simple,
                        pointer(values + strip * size, bounds),
                        pointer(whole + strip * 4, opened),
                    )
            if positions == 1:
                _fold_each(scratch, opened, here, stop - start, batch)
            else:
                for j in range(here):
                    _fold(scratch, opened, j * positions, positions, stop - start, batch, j)
        _commit(address, rows, positions, again, bounds, batch, tile, here, counts, sums)


@nb.njit(nogil=True, cache=True)
def _positions(address, rows, positions, again, bounds, counts, sums):
    """Long P: the positions of a unit side by side; rows stay outside, so that memory is read in order."""
    units, size, step = counts.shape[1], bounds.itemsize, TILE // LANES
    batch = np.empty((4, step))
    scratch, opened = np.empty((8, TILE), bounds.dtype), np.ones((2, TILE), np.int32)
    values, whole = scratch.ctypes.data, opened.ctypes.data
    simple = bounds.shape[0] == 1
    vectors, rest = positions // LANES, positions % LANES
    run = max(1, RUN // vectors)
    for tile in range(0, units, step):
        here = min(step, units - tile)
        for j in range(here):
            shift = carray(pointer(address + (tile + j) * positions * size, bounds), 1)[0]
            scratch[lanes.SHIFT, j * LANES : (j + 1) * LANES] = shift
            scratch[lanes.PEAK, j * LANES : (j + 1) * LANES] = shift
        _set_bounds(scratch, bounds, tile, here, LANES)
        batch[:, :here] = 0
        batch[PEAK, :here] = -np.inf
        for start in range(0, rows, run):
            stop = min(rows, start + run)
            opened[0], scratch[lanes.TOTAL], scratch[lanes.SQUARES] = 0, 0, 0
            for i in range(start, stop):
                for j in range(here):
                    place = address + (i * units + tile + j) * positions * size
                    table = pointer(values + j * LANES * size, bounds)
                    count = pointer(whole + j * LANES * 4, opened)
                    _strip(pointer(place, bounds), vectors, LANES, LANES, simple, table, count)
                    if rest:
                        tail = pointer(place + vectors * LANES * size, bounds)
                        _strip(tail, 1, 0, rest, simple, table, count)
            for j in range(here):
                # what the lanes hold is of (stop - start) · P values of the unit
                _fold(scratch, opened, j * LANES, LANES, (stop - start) * positions / LANES, batch, j)
        _commit(address, rows, positions, again, bounds, batch, tile, here, counts, sums)


@nb.njit(nogil=True, cache=True)
def _is_open(v, bounds, unit):
    unit = unit % bounds.shape[1]
    if not v > bounds[0, unit]:
        return False
    if bounds.shape[0] == 1:
        return True
    return v < bounds[1, unit] and (v < bounds[2, unit] or v > bounds[3, unit])


@nb.njit(nogil=True, cache=True)
def _exact(z, bounds, tile, batch, non_finite):
    """A tile (A, units, P) value by value: right whatever NaN, infinities or huge values come."""
    huge = z.dtype.type(HUGE)
    for j in range(batch.shape[1]):
        batch[:, j] = 0
        batch[PEAK, j] = -np.inf
        for i in range(z.shape[0]):
            for v in z[i, tile + j]:
                if np.isfinite(v):
                    batch[OPENED, j] += _is_open(v, bounds, tile + j)
                    batch[TOTAL, j] += v
                    batch[SQUARES, j] += np.float64(v) * np.float64(v)
                    batch[PEAK, j] = max(batch[PEAK, j], np.float64(v))
                else:
                    non_finite[tile + j] += 1
                    if not np.isnan(v):
                        batch[OPENED, j] += _is_open(huge if v > 0 else -huge, bounds, tile + j)


@nb.njit(nogil=True, cache=True)
def _commit(address, rows, positions, again, bounds, batch, tile, here, counts, sums):
    """A tile's sums over the batch into the running sums of its units."""
    if not np.isfinite(batch[SQUARES, :here].sum()):
        z = carray(pointer(address, bounds), (rows, counts.shape[1], positions))
        _exact(z, bounds, tile, batch[:, :here], counts[NON_FINITE])
    n = rows * positions
    for j in range(here):
        peak = batch[PEAK, j]
        sums[TOTAL, tile + j] += batch[TOTAL, j]
        sums[SQUARES, tile + j] += batch[SQUARES, j]
        sums[PEAK, tile + j] = peak if peak > sums[PEAK, tile + j] else sums[PEAK, tile + j]
    for j in range(here):
        counts[ACTIVE, tile + j] += np.int64(batch[OPENED, j])
        loud = (batch[OPENED, j] > 0) | (again & (counts[SILENT, tile + j] == 0))
        counts[SILENT, tile + j] = 0 if loud else counts[SILENT, tile + j] + n


@nb.njit(nogil=True, cache=True)
def accumulate(address, rows, positions, again, bounds, counts, sums):
    """Count a batch of pre-activations in.

    Args:
        address: of the batch (A, F, P) in memory, of the precision of `bounds`.
        rows: A, at least 1.
        positions: P, at least 1.
        again: a repeated call of the site in one forward of the model.
        bounds: the gate: (1, ·) of lows, or (4, ·) of lows, highs, and lows and highs of the hole; one column
            for all units or one for each.
        counts: (3, F) int64, changed in place.
        sums: (4, F) float64, changed in place.
    """
    if positions < LONG:
        _columns(address, rows, positions, again, bounds, counts, sums)
    else:
        _positions(address, rows, positions, again, bounds, counts, sums)


@nb.njit(nogil=True, cache=True, fastmath=REORDER)
def add_squares(address, rows, positions, like, sums):
    """Add the squares of a gradient (A, F, P) at `address` to `sums` (F,): exactly 0 iff all are 0.

    `like` is an array of its precision; the squares are taken and added in float64.
    """
    units, size = len(sums), like.itemsize
    total = np.empty(TILE)
    place = total.ctypes.data
    if positions < LONG:
        step = max(1, TILE // positions)
        for tile in range(0, units, step):
            width = min(step, units - tile) * positions
            total[: (width + LANES - 1) // LANES * LANES] = 0
            for block in range(0, rows, BLOCK):
                for strip in range(0, width, LANES):
                    z = pointer(address + ((block * units + tile) * positions + strip) * size, like)
                    steps, on = min(BLOCK, rows - block), min(LANES, width - strip)
                    into = pointer(place + strip * 8, total)
                    if on == LANES:
                        lanes.squares_whole(z, steps, units * positions, on, into)
                    else:
                        lanes.squares_part(z, steps, units * positions, on, into)
            for j in range(width // positions):
                for p in range(j * positions, (j + 1) * positions):
                    sums[tile + j] += total[p]
    else:
        vectors, rest = positions // LANES, positions % LANES
        for tile in range(0, units, TILE // LANES):
            here = min(TILE // LANES, units - tile)
            total[:] = 0
            for i in range(rows):
                for j in range(here):
                    at = address + (i * units + tile + j) * positions * size
                    into = pointer(place + j * LANES * 8, total)
                    lanes.squares_whole(pointer(at, like), vectors, LANES, LANES, into)
                    if rest:
                        lanes.squares_part(pointer(at + vectors * LANES * size, like), 1, 0, rest, into)
            for j in range(here):
                sums[tile + j] += total[j * LANES : (j + 1) * LANES].sum()


@nb.njit(nogil=True, cache=True)
def accumulate_members(address, rows, bounds, counts, sums):
    """Count a batch of K members of a stack in: (K, A, F) in memory.

    Args:
        address: of the batch.
        rows: A, at least 1.
        bounds: (K, 1 or 4, ·): the gate of each member, as in `accumulate`.
        counts: (K, 3, F) int64, changed in place.
        sums: (K, 4, F) float64, changed in place.
    """
    size = rows * counts.shape[2] * bounds.itemsize
    for k in range(len(counts)):
        accumulate(address + k * size, rows, 1, False, bounds[k], counts[k], sums[k])


@nb.njit(nogil=True, cache=True)
def add_squares_members(address, rows, like, sums):
    """Add the squares of a gradient (K, A, F) at `address` to row GRADIENT of `sums` (K, 4, F)."""
    size = rows * sums.shape[2] * like.itemsize
    for k in range(len(sums)):
        add_squares(address + k * size, rows, 1, like, sums[k, GRADIENT])
