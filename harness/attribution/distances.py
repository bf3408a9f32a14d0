"""Distances: how far many tensors have moved since they were last copied, in one pass over memory.

On a CPU, one compiled loop reads all of them; elsewhere, and for unusual layouts, torch does it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numba as nb
import numpy as np
import torch
from torch import Tensor

from harness.kernels.numba_intrinsics import REORDER, values

BLOCK = 1024  # values whose squares are summed in their own precision
STRIDE = 61  # distance between the values of a large tensor compared when no change is expected
SMALL = 4096  # largest size of a tensor that is compared completely
LIKE = {torch.float32: np.zeros(1, np.float32), torch.float64: np.zeros(1, np.float64)}


class ReferenceCopy:
    """A copy of tensors, with which their current values are compared.

    Args:
        tensors: in a fixed order.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._copies = [t.detach().clone() for t in tensors]
        self._sizes = np.array([t.numel() for t in tensors], np.int64)
        self._matrices = np.array([t.ndim > 1 for t in tensors])  # without those that begin as 0
        self._addresses = addresses(self._copies) if flat(self._copies) is not None else None
        plain = self._addresses is None and all(map(is_plain, tensors))
        self._first = torch._foreach_norm(self._copies) if plain and tensors else []  # pyright: ignore[reportPrivateImportUsage]

    def fits(self, now: Sequence[Tensor]) -> bool:
        """Whether the number of tensors, their shapes, dtypes and devices are unchanged."""
        return len(now) == len(self._copies) and all(
            t.shape == copy.shape and t.dtype is copy.dtype and t.device == copy.device
            for t, copy in zip(now, self._copies, strict=True)
        )

    def is_unchanged(self, now: Sequence[Tensor]) -> bool:
        """Whether a sample of every 61st value shows no change; always False on a GPU."""
        like = flat(now)
        if like is None or self._addresses is None:
            return False
        return bool(_same(addresses(now), self._addresses, self._sizes, like))

    def update(self, now: Sequence[Tensor]) -> tuple[Any, Any, Any]:
        """How far the tensors have moved; updates the copy to the current values.

        Returns:
            L2 norms of the movement and of the tensors, and the largest share of its own norm by which a
            matrix moved that was not 0 at first (NaN if unknown).
        """
        if not now:
            return np.nan, np.nan, np.nan
        like, largest = flat(now), np.nan
        if like is not None and self._addresses is not None:
            sums = np.zeros(3)
            _move(addresses(now), self._addresses, self._sizes, self._matrices, like, sums)
            return float(np.sqrt(sums[0])), float(np.sqrt(sums[1])), float(np.sqrt(sums[2]))
        if all(is_plain(t) for t in now):
            before = torch._foreach_norm(self._copies)  # pyright: ignore[reportPrivateImportUsage]
            torch._foreach_sub_(self._copies, list(now))  # pyright: ignore[reportPrivateImportUsage]
            moved = torch._foreach_norm(self._copies)  # pyright: ignore[reportPrivateImportUsage]
            distance, largest = _whole(moved), self._largest(moved, before) if self._first else np.nan
            torch._foreach_copy_(self._copies, list(now))  # pyright: ignore[reportPrivateImportUsage]
        else:  # sharded or otherwise special tensors support fewer operations
            distance = norm([t.detach() - copy for t, copy in zip(now, self._copies, strict=True)])
            for t, copy in zip(now, self._copies, strict=True):
                copy.copy_(t)
        return distance, norm(now), largest

    def _largest(self, moved: Sequence[Tensor], before: Sequence[Tensor]) -> Any:
        """The largest share of its norm by which a matrix moved, on its device."""
        shares = [
            torch.where(first > 0, distance / size, 0.0).float()
            for distance, size, first, matrix in zip(moved, before, self._first, self._matrices, strict=True)
            if matrix
        ]
        return torch.stack([share.to(shares[0].device) for share in shares]).max() if shares else np.nan


def norm(tensors: Sequence[Tensor]) -> Any:
    """L2 norm over all of them: a number on a CPU, else a tensor on the device; NaN if there are none.

    For sharded tensors (DTensor) it is the norm of the whole, the same on every rank: a collective call.
    """
    if not tensors:
        return np.nan
    like = flat(tensors)
    if like is not None:
        sizes = np.array([t.numel() for t in tensors], np.int64)
        return float(np.sqrt(_squares(addresses(tensors), sizes, like)))
    if all(is_plain(t) for t in tensors):
        parts = torch._foreach_norm(list(tensors))  # pyright: ignore[reportPrivateImportUsage]
    else:
        sharded = [t for t in tensors if hasattr(t, "full_tensor")]
        parts = [torch.linalg.vector_norm(t.detach()) for t in tensors if not hasattr(t, "full_tensor")]
        parts += _sharded_norms(sharded)
    return _whole(parts)


def _whole(parts: Sequence[Tensor]) -> Tensor:
    """The norm of everything, on the device of the first part."""
    device = parts[0].device
    return torch.linalg.vector_norm(torch.stack([part.to(device).double() for part in parts]))


def _sharded_norms(tensors: Sequence[Any]) -> list[Tensor]:
    """One norm for all tensors with the same sharding, which needs one communication instead of many."""
    from torch.distributed.tensor import DTensor, Partial, Replicate

    groups: dict[Any, list[Tensor]] = {}
    for t in tensors:
        groups.setdefault((t.device_mesh, t.placements), []).append(t.detach().to_local())
    norms = []
    for (mesh, placements), local in groups.items():
        squares = torch.stack([t.double().square().sum() for t in local]).sum()
        summed = [p if isinstance(p, Replicate) else Partial() for p in placements]
        norms.append(DTensor.from_local(squares, mesh, summed, run_check=False).full_tensor().sqrt())
    return norms


def is_plain(tensor: Tensor) -> bool:
    """Whether a tensor is not a subclass instance."""
    return type(tensor) in (Tensor, torch.nn.Parameter)


def flat(tensors: Sequence[Tensor]) -> np.ndarray | None:
    """An array of the tensors' dtype, if all are contiguous, on the CPU and of one dtype."""
    if not tensors:
        return None
    dtype = tensors[0].dtype
    if dtype not in LIKE:
        return None
    for t in tensors:
        if t.dtype is not dtype or not t.is_cpu or not is_plain(t):
            return None
        if not (t.is_contiguous() or (t.ndim == 4 and t.is_contiguous(memory_format=torch.channels_last))):
            return None
    return LIKE[dtype]


def addresses(tensors: Sequence[Tensor]) -> np.ndarray:
    """Address of the first value of each."""
    return np.array([t.data_ptr() for t in tensors], np.int64)


@nb.njit(nogil=True, cache=True, fastmath=REORDER)
def _move(now, copies, sizes, matrices, like, sums):
    for t in range(len(sizes)):
        p, q = values(now[t], sizes[t], like), values(copies[t], sizes[t], like)
        moved, was = 0.0, 0.0
        for start in range(0, sizes[t], BLOCK):
            here, there = p[start : start + BLOCK], q[start : start + BLOCK]
            distance, size, before = like[0] * 0, like[0] * 0, like[0] * 0
            for i in range(len(here)):  # starts at 0, so that the compiler sees no negative index
                d = here[i] - there[i]
                distance += d * d
                size += here[i] * here[i]
                before += there[i] * there[i]
            there[:] = here
            moved += np.float64(distance)
            was += np.float64(before)
            sums[1] += np.float64(size)
        sums[0] += moved
        if was == 0:
            matrices[t] = False
        elif matrices[t]:
            sums[2] = max(sums[2], moved / was)


@nb.njit(nogil=True, cache=True, fastmath=REORDER)
def _squares(now, sizes, like):
    total = 0.0
    for t in range(len(sizes)):
        p = values(now[t], sizes[t], like)
        for start in range(0, sizes[t], BLOCK):
            here = p[start : start + BLOCK]
            size = like[0] * 0
            for i in range(len(here)):
                size += here[i] * here[i]
            total += np.float64(size)
    return total


@nb.njit(nogil=True, cache=True)
def _same(now, copies, sizes, like):
    for t in range(len(sizes)):
        p, q = values(now[t], sizes[t], like), values(copies[t], sizes[t], like)
        step = 1 if sizes[t] <= SMALL else STRIDE
        for i in range(0, sizes[t], step):
            if p[i] != q[i] and (p[i] == p[i] or q[i] == q[i]):  # NaN that was NaN before has not moved
                return False
    return True
