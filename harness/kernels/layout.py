"""How the units of a tensor lie in it."""

from __future__ import annotations

import torch
from torch import Tensor


def as_units(z: Tensor, axis: int) -> Tensor:
    """View of a pre-activation as (A, F) or (A, F, P): inputs, units, positions.

    Args:
        z: at least one axis.
        axis: unit axis, from the end.

    Example:
        >>> as_units(torch.zeros(2, 3, 4, 5), -3).shape
        torch.Size([2, 3, 20])
    """
    units = z.shape[axis]
    if axis == -1:
        return z.reshape(-1, units) if z.numel() else z.new_empty(0, units)
    if (
        z.ndim == 4
        and axis == -3
        and not z.is_contiguous()
        and z.is_contiguous(memory_format=torch.channels_last)
    ):
        return z.permute(0, 2, 3, 1).reshape(-1, units)
    positions = 1
    for size in z.shape[axis + 1 :]:
        positions *= size
    return z.reshape(-1, units, positions) if z.numel() else z.new_empty(0, units, max(positions, 1))
