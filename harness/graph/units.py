"""Unit indices: which unit every entry of a tensor belongs to, followed through views.

A small integer tensor accompanies an activation. It has the same number of axes, with size 1 along all axes
on which the unit does not change. Functions that move entries (views, flattening, slices) are applied to the
indices as well, so the code need not know what a reshaping does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class UnitLayout(NamedTuple):
    """Layout of a site's units in its pre-activation.

    Attributes:
        axes: unit axes, from the end; () if the tensor holds one unit.
        size: number of units.
        splits: (axis, sizes) to unflatten first, from left to right, where units and positions share an axis.
        rows: for each unit of the site, the producer's unit; None if they are the same.
    """

    axes: tuple[int, ...]
    size: int
    splits: tuple[tuple[int, tuple[int, int]], ...] = ()
    rows: tuple[int, ...] | None = None


def fresh(ndim: int, axis: int, size: int) -> Tensor:
    """Unit indices of a layer's output whose units lie along `axis`.

    >>> fresh(2, -1, 3).tolist()
    [[0, 1, 2]]
    """
    return fresh_along(ndim, {axis % ndim - ndim: size})


def fresh_along(ndim: int, sizes: Mapping[int, int]) -> Tensor:
    """Unit indices of a tensor whose units lie along several axes.

    Args:
        ndim: its number of axes.
        sizes: axis, from the end → size.

    >>> fresh_along(3, {-3: 2, -1: 2}).tolist()
    [[[0, 1]], [[2, 3]]]
    """
    shape = [sizes.get(axis, 1) for axis in range(-ndim, 0)]
    return torch.arange(math.prod(shape), dtype=torch.int32).view(shape)


def compact(indices: Tensor) -> Tensor:
    """Indices with size 1 along every axis on which the unit does not change.

    >>> compact(fresh(3, 1, 4).expand(2, 4, 5)).shape
    torch.Size([1, 4, 1])
    """
    for axis in range(indices.ndim):
        first = indices.narrow(axis, 0, min(1, indices.shape[axis]))
        if indices.shape[axis] > 1 and (indices.stride(axis) == 0 or bool((indices == first).all())):
            indices = first
    return indices


def selected(indices: Tensor, places: Tensor, ndim: int) -> Tensor | None:
    """Indices after `x[places]`, for indices (or a mask) of inputs; None if it selects among units.

    >>> selected(fresh(2, -1, 4), torch.tensor([5, 1]), 2).shape
    torch.Size([1, 4])
    """
    axes = places.ndim if places.dtype == torch.bool else 1
    if not indices.numel() or any(size > 1 for size in indices.shape[:axes]):
        return None
    rest = indices.shape[axes:]
    return indices.reshape((1,) * (ndim - len(rest)) + tuple(rest))


def fits(indices: Tensor | None, shape: torch.Size) -> bool:
    """Whether a tensor of that shape can have these unit indices.

    >>> fits(fresh(2, -1, 3), torch.Size([5, 3])), fits(fresh(2, -1, 3), torch.Size([3, 5]))
    (True, False)
    """
    if indices is None or indices.ndim != len(shape):
        return False
    return all(size in (1, shape[axis]) for axis, size in enumerate(indices.shape))


def varying(indices: Tensor) -> list[int]:
    """The axes, from the end, along which the unit changes."""
    return [axis - indices.ndim for axis, size in enumerate(indices.shape) if size > 1]


def repeats(indices: Tensor, axis: int) -> bool:
    """Whether some unit comes several times along an axis on which the unit changes.

    >>> repeats(torch.tensor([[0, 0, 1, 1]]), -1), repeats(fresh(2, -1, 3), -1), repeats(fresh(2, -1, 3), -2)
    (True, False, False)
    """
    if indices.ndim < -axis or indices.shape[axis] < 2:
        return False
    ordered = indices.sort(axis).values
    return bool((ordered.diff(dim=axis) == 0).any())


def along(indices: Tensor, shape: torch.Size, axis: int) -> Tensor | None:
    """The unit at each place along an axis, (places,) int64; None if a place holds several units.

    >>> along(compact(fresh(3, 1, 2).expand(5, 2, 2).flatten(1)), torch.Size([5, 4]), -1)
    tensor([0, 0, 1, 1])
    """
    if any(other != axis for other in varying(indices)):
        return None
    return indices.flatten().expand(shape[axis]).long()


def rows_of_places(tensor: Tensor, axes: Sequence[int]) -> Tensor:
    """View or copy of a tensor with the unit axes as columns: (inputs and positions, places).

    >>> rows_of_places(torch.zeros(2, 3, 4), (-2,)).shape
    torch.Size([8, 3])
    """
    places = [tensor.shape[axis] for axis in axes]
    return tensor.movedim(tuple(axes), tuple(range(-len(places), 0))).reshape(-1, math.prod(places))


def layout_of(indices: Tensor) -> UnitLayout | None:
    """The layout of units in a tensor; None if their places follow no simple pattern.

    >>> layout_of(fresh(3, 1, 4))
    UnitLayout(axes=(-2,), size=4, splits=(), rows=None)
    >>> layout_of(torch.tensor([[0, 0, 1, 1]]))  # channels, flattened with their positions
    UnitLayout(axes=(-2,), size=2, splits=((-1, (2, -1)),), rows=None)
    >>> layout_of(torch.tensor([[0, 1, 0, 1]]))
    UnitLayout(axes=(-1,), size=2, splits=((-1, (-1, 2)),), rows=None)
    """
    axes, places = varying(indices), indices.numel()
    number = len(torch.unique(indices))
    if number == places:
        return UnitLayout(tuple(axes), places, (), _rows(indices.flatten()))
    splits, unit_axes = [], []
    for axis in axes:
        sizes = _pattern(indices, axis)
        if sizes is not None:
            splits.append((axis, sizes))
            indices = _first_of(indices, axis, sizes)
        unit_axes.append((axis, sizes is not None and sizes[1] == -1))
    if indices.numel() != number:
        return None
    shifted = [axis - sum(split > axis for split, _ in splits) - before for axis, before in unit_axes]
    return UnitLayout(tuple(shifted), number, tuple(splits), _rows(indices.flatten()))


def _pattern(indices: Tensor, axis: int) -> tuple[int, int] | None:
    """How units and positions, as -1, share an axis; None if it holds units alone."""
    size = indices.shape[axis]
    lines = indices.movedim(axis, 0).reshape(size, -1)
    for units in range(1, size):
        if size % units:
            continue
        if torch.equal(lines, lines[:: size // units].repeat_interleave(size // units, 0)):
            return units, -1
        if torch.equal(lines, lines[:units].repeat(size // units, 1)):
            return -1, units
    return None


def _first_of(indices: Tensor, axis: int, sizes: tuple[int, int]) -> Tensor:
    """The indices at the first of the positions that share an axis with units."""
    positions = -2 if sizes[0] == -1 else -1
    split = indices.movedim(axis, -1).unflatten(-1, sizes).select(positions, 0)
    return split.movedim(-1, axis)


def _rows(units: Tensor) -> tuple[int, ...] | None:
    """The units, or None if they are simply 0, 1, 2 and so on."""
    own = units.tolist()
    return None if own == list(range(len(own))) else tuple(own)


def arranged(tensor: Tensor, layout: UnitLayout) -> Tensor:
    """The tensor with the units on axes of their own."""
    for split in layout.splits:
        tensor = tensor.unflatten(*split)
    return tensor


def units_in(shape: torch.Size, layout: UnitLayout) -> int:
    """How many units a tensor of that shape has under a layout; -1 if it lacks the axes.

    >>> units_in(torch.Size([5, 4]), UnitLayout((-1,), 4))
    4
    >>> units_in(torch.Size([5, 6]), UnitLayout((-1,), 2, ((-1, (-1, 2)),)))
    2
    """
    sizes = list(shape)
    for axis, (first, second) in layout.splits:
        known = max(first, second)
        if len(sizes) < -axis or sizes[axis] % known:
            return -1
        others = sizes[axis] // known
        place = len(sizes) + axis
        sizes[place : place + 1] = [others, known] if first == -1 else [known, others]
    if len(sizes) < -min(layout.axes, default=0):
        return -1
    size = 1
    for axis in layout.axes:  # a loop, which torch's compiler takes
        size *= sizes[axis]
    return size
