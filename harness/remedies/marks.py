"""Marks: a tensor of integers beside an activation, telling of every entry which unit it comes from.

What moves entries about (views, flattening, pooling) is done to the marks too; so it never has to be known
what a reshaping does, only whether the marks it leaves are still told apart along one axis.
"""

from __future__ import annotations

import torch
from torch import Tensor


def fresh(out: Tensor, axis: int) -> Tensor:
    """Marks of a layer's output whose units lie along `axis`; takes no memory until it is reordered.

    >>> fresh(torch.zeros(2, 3), -1).tolist()
    [[0, 1, 2], [0, 1, 2]]
    """
    units = torch.arange(out.shape[axis], dtype=torch.int32, device=out.device)
    shape = [1] * out.ndim
    shape[axis] = -1
    return units.view(shape).expand(out.shape)


def along(marks: Tensor, axis: int) -> Tensor | None:
    """The unit of each place along an axis (columns,) int64; None if places hold several units.

    >>> along(fresh(torch.zeros(2, 3, 2), 1).flatten(1), -1).tolist()
    [0, 0, 1, 1, 2, 2]
    >>> along(fresh(torch.zeros(2, 3, 2), 1), -1) is None
    True
    """
    rows = marks.movedim(axis, -1).reshape(-1, marks.shape[axis])
    if not rows.numel() or not bool((rows == rows[0]).all()):
        return None
    return rows[0].long()


def axis_of(marks: Tensor) -> tuple[int, Tensor] | None:
    """The axis (from the end) along which units lie, and the unit of each place; None if there is none.

    >>> axis_of(fresh(torch.zeros(2, 3, 4), 1))
    (-2, tensor([0, 1, 2]))
    """
    for axis in range(-1, -marks.ndim - 1, -1):
        columns = along(marks, axis)
        if columns is not None:
            return axis, columns
    return None


def reduced(marks: Tensor, axes: int | list[int], *, keep: bool) -> Tensor | None:
    """Marks after a reduction over some axes; None if it mixes units.

    >>> reduced(fresh(torch.zeros(2, 3, 4), 1), [2], keep=False).shape
    torch.Size([2, 3])
    """
    low, high = (f(marks, axes, keep) for f in (torch.amin, torch.amax))
    return low if torch.equal(low, high) else None
