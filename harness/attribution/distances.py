"""Distances: how far many tensors have moved since they were last looked at, in one pass over memory.

On a CPU a compiled loop walks over all of them at once; elsewhere, and for odd layouts, torch does it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numba as nb
import numpy as np
import torch
from numba.np.numpy_support import carray
from torch import Tensor

from harness.kernels.numba import REORDER
from harness.kernels.simd import pointer

LONG = 1024  # values whose squares are summed in their own precision
STRIDE = 61  # every how many values of a large tensor are compared when nothing should have moved
SMALL = 4096  # values of a tensor that are all compared
LIKE = {torch.float32: np.zeros(1, np.float32), torch.float64: np.zeros(1, np.float64)}


class Places:
    """Where tensors were when they were last looked at.

    Args:
        tensors: in an order that stays.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._kept = [t.detach().clone() for t in tensors]
        self._sizes = np.array([t.numel() for t in tensors], np.int64)
        self._homes = addresses(self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    def untouched(self, now: Sequence[Tensor]) -> bool:
        """Whether, as far as a sample of every 61st value shows, nothing has moved; never sure on a GPU."""
        like = flat(now)
        if like is None or flat(self._kept) is None:
            return False
        return bool(_same(addresses(now), self._homes, self._sizes, like))

    def moved(self, now: Sequence[Tensor]) -> tuple[Any, Any]:
        """L2 norm of how far the tensors are from where they were, and of the tensors; they are here now."""
        if not now:
            return np.nan, np.nan
        like = flat(now)
        if like is None or flat(self._kept) is None:
            torch._foreach_sub_(self._kept, list(now))  # pyright: ignore[reportPrivateImportUsage]
            distance = norm(self._kept)
            torch._foreach_copy_(self._kept, list(now))  # pyright: ignore[reportPrivateImportUsage]
            return distance, norm(now)
        sums = np.zeros(2)
        _move(addresses(now), self._homes, self._sizes, like, sums)
        return float(np.sqrt(sums[0])), float(np.sqrt(sums[1]))


def norm(tensors: Sequence[Tensor]) -> Any:
    """L2 norm over all of them: a number on a CPU, else a tensor on the device; NaN if there are none."""
    if not tensors:
        return np.nan
    like = flat(tensors)
    if like is not None:
        sizes = np.array([t.numel() for t in tensors], np.int64)
        return float(np.sqrt(_squares(addresses(tensors), sizes, like)))
    parts = torch._foreach_norm(list(tensors))  # pyright: ignore[reportPrivateImportUsage]
    home = parts[0].device
    return torch.linalg.vector_norm(torch.stack([part.to(home).double() for part in parts]))


def flat(tensors: Sequence[Tensor]) -> np.ndarray | None:
    """An array of the tensors' kind, if all lie on the CPU without gaps and are of one kind."""
    if not tensors:
        return None
    dtype = tensors[0].dtype
    if dtype not in LIKE:
        return None
    for t in tensors:
        if t.dtype is not dtype or not t.is_cpu or type(t) not in (Tensor, torch.nn.Parameter):
            return None
        if not (t.is_contiguous() or (t.ndim == 4 and t.is_contiguous(memory_format=torch.channels_last))):
            return None
    return LIKE[dtype]


def addresses(tensors: Sequence[Tensor]) -> np.ndarray:
    """Of the first value of each."""
    return np.array([t.data_ptr() for t in tensors], np.int64)


@nb.njit(nogil=True, cache=True, fastmath=REORDER)
def _move(now, kept, sizes, like, sums):
    for t in range(len(sizes)):
        p, q = carray(pointer(now[t], like), sizes[t]), carray(pointer(kept[t], like), sizes[t])
        for start in range(0, sizes[t], LONG):
            here, there = p[start : start + LONG], q[start : start + LONG]
            distance, size = like[0] * 0, like[0] * 0
            for i in range(len(here)):  # from 0, so that the compiler sees no negative place
                d = here[i] - there[i]
                distance += d * d
                size += here[i] * here[i]
            there[:] = here
            sums[0] += np.float64(distance)
            sums[1] += np.float64(size)


@nb.njit(nogil=True, cache=True, fastmath=REORDER)
def _squares(now, sizes, like):
    total = 0.0
    for t in range(len(sizes)):
        p = carray(pointer(now[t], like), sizes[t])
        for start in range(0, sizes[t], LONG):
            here = p[start : start + LONG]
            size = like[0] * 0
            for i in range(len(here)):
                size += here[i] * here[i]
            total += np.float64(size)
    return total


@nb.njit(nogil=True, cache=True)
def _same(now, kept, sizes, like):
    for t in range(len(sizes)):
        p, q = carray(pointer(now[t], like), sizes[t]), carray(pointer(kept[t], like), sizes[t])
        step = 1 if sizes[t] <= SMALL else STRIDE
        for i in range(0, sizes[t], step):
            if p[i] != q[i] and (p[i] == p[i] or q[i] == q[i]):  # NaN where there was NaN has not moved
                return False
    return True
