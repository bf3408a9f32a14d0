"""Layout of the units in a tensor."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

Axes = int | tuple[int, ...]


def as_axes(axes: Axes) -> tuple[int, ...]:
    """Unit axes from the end, as a tuple; a bare int is one axis.

    Example:
        >>> as_axes(-1), as_axes((-3, -1))
        ((-1,), (-3, -1))
    """
    return (axes,) if isinstance(axes, int) else axes


def unit_shape(z: Tensor, axes: Axes) -> tuple[int, ...]:
    """Sizes of the unit axes; () for one unit: no axes, or a 0-dimensional tensor.

    Raises:
        ValueError: the tensor lacks an axis, or an axis is given twice.
    """
    axes = as_axes(axes) if z.ndim else ()
    if any(not -z.ndim <= axis < 0 for axis in axes) or len({*axes}) < len(axes):
        raise ValueError(f"axes: expected different axes between {-z.ndim} and -1, but got {axes}")
    return tuple(z.shape[axis] for axis in axes)


def as_units(z: Tensor, axes: Axes, *, ordered: bool = True) -> Tensor:
    """View of a tensor as (A, F) or (A, F, P): inputs, units, positions.

    Positions are the axes closer together in memory than the units, inputs are the others. Adjacent unit axes
    are merged; the tensor is copied only if its memory allows no such view.

    Args:
        z: the tensor.
        axes: unit axes, negative. Several are numbered row-major in the order given. No axes, or a
            0-dimensional tensor: one unit, every value is an input.
        ordered: keep inputs in the order of the tensor's axes; False: in memory order, to save copies.

    Raises:
        ValueError: the tensor lacks an axis, or an axis is given twice.

    Example:
        >>> import torch
        >>> as_units(torch.zeros(2, 3, 4, 5), -3).shape
        torch.Size([2, 3, 20])
        >>> as_units(torch.zeros(2, 7, 4, 5), (-2, -1)).shape  # heads × features
        torch.Size([14, 20])
    """
    dims, sizes = unit_order(z, axes, ordered=ordered)
    return z.permute(dims).reshape(sizes)


def unit_order(z: Tensor, axes: Axes, *, ordered: bool = True) -> tuple[list[int], list[int]]:
    """The order of a tensor's axes as `as_units` arranges them, and the sizes into which it merges them.

    Example:
        >>> import torch
        >>> unit_order(torch.zeros(2, 3, 4), -1), unit_order(torch.zeros(2, 3, 4), (-3, -1))
        (([0, 1, 2], [6, 4]), ([1, 0, 2], [3, 8]))
    """
    sizes = unit_shape(z, axes)
    if not sizes:
        return list(range(z.ndim)), [z.numel(), 1]
    shape, strides = z.shape, z.stride()
    units = [z.ndim + axis for axis in as_axes(axes)]
    outer = [d for d in range(z.ndim) if d not in units]
    step = min([strides[d] for d in units if shape[d] > 1] or [strides[units[-1]]])
    first = units[0] if ordered else -1
    inner = [d for d in outer if d > first and shape[d] > 1 and 0 < strides[d] < step]
    outer = [d for d in outer if d not in inner]
    if not ordered:
        outer.sort(key=strides.__getitem__, reverse=True)
        inner.sort(key=strides.__getitem__, reverse=True)
    merged = [_product([shape[d] for d in outer]), _product(sizes)]
    if inner:
        merged.append(_product([shape[d] for d in inner]))
    return outer + units + inner, merged


def _product(sizes: Iterable[int]) -> int:
    """Like `math.prod`, which does not trace under `torch.compile`."""
    product = 1
    for size in sizes:
        product *= size
    return product
