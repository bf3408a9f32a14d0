"""Compiled loops (numba) over gradients: sums of squares per unit; notation as in `numba.py`."""

from __future__ import annotations

import numba as nb
import numpy as np
import torch

from harness.kernels.accumulators import GRADIENT
from harness.kernels.numba import LONG
from harness.kernels.numba_intrinsics import DOUBLE, REORDER, SINGLE, WHOLE, values


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


@nb.njit(cache=True)
def _add_squares_at(address, call, like):
    r = values(call, 8, WHOLE)
    units = r[2]
    sums = values(r[7], 5 * units, DOUBLE)[GRADIENT * units : (GRADIENT + 1) * units]
    add_squares(address, r[0], r[1], like, sums)


# Like `add_squares`, with all constant arguments in the record at the address `call`, as in `numba.py`.


@nb.njit(cache=True)
def _add_squares_single(address, call):
    _add_squares_at(address, call, SINGLE)


@nb.njit(cache=True)
def _add_squares_double(address, call):
    _add_squares_at(address, call, DOUBLE)


ADD_SQUARES_AT = {torch.float32: _add_squares_single, torch.float64: _add_squares_double}


@nb.njit(cache=True)
def add_squares_members(address, rows, like, sums):
    """Add the squares of a gradient (K, A, F) at `address` to row GRADIENT of `sums` (K, 5, F)."""
    size = rows * sums.shape[2] * like.itemsize
    for k in range(len(sums)):
        add_squares(address + k * size, rows, 1, like, sums[k, GRADIENT])
