"""Tensors that are concatenated or stacked: where the units of each lie in the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from harness.graph.origin import Origin
from harness.graph.producers import Producer

SIDE_BY_SIDE = "units of different layers lie side by side along an axis of inputs or positions"
SHORT = {"hstack": 1, "vstack": 0}  # function → the axis of tensors with several


def joined(
    name: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    parts: Sequence[tuple[Tensor, Origin | None]],
    union: Origin,
    out: Tensor,
) -> Origin:
    """The origin of concatenated or stacked tensors.

    Args:
        name: name of the function.
        args: its arguments.
        kwargs: its keyword arguments.
        parts: the tensors, and their origins.
        union: their joint origin.
        out: the result.
    """
    parts = [(part, origin) for part, origin in parts if part.numel()]  # an empty part adds no unit
    known = [origin for _, origin in parts if origin is not None and origin.units is not None]
    dim = kwargs.get("dim", kwargs.get("axis", args[1] if len(args) > 1 else 0))
    if name in SHORT and out.ndim > 1:
        dim = SHORT[name]
    elif name in SHORT:
        return union._replace(units=None)
    if not known or len(known) < len(parts) or not isinstance(dim, int):
        return union._replace(units=None)
    axis = dim - out.ndim if dim >= 0 else dim
    indices = [origin.units for origin in known if origin.units is not None]
    if name == "stack":
        indices = [index.unsqueeze(axis) for index in indices]
    if any(index.shape[axis] > 1 for index in indices):
        return union._replace(units=_one_after_another(indices, [part for part, _ in parts], axis))
    if not all(torch.equal(index, indices[0]) for index in indices):
        return union._replace(units=None)
    groups = _groups(known)
    if len(groups) == 1:
        return union._replace(units=indices[0])
    if name != "stack":
        return union._replace(units=None, reason=SIDE_BY_SIDE)
    most = int(indices[0].max()) + 1
    places = [next(k for k, group in enumerate(groups) if set(one.producers) <= group) for one in known]
    shifted = [index + most * place for index, place in zip(indices, places, strict=True)]
    return union._replace(units=torch.cat(shifted, axis), part=True)


def side_by_side(first: Origin, second: Origin) -> bool:
    """Whether two tensors with the same unit indices were made by different layers."""
    return len(_groups([first, second])) > 1


def _one_after_another(indices: Sequence[Tensor], parts: Sequence[Tensor], axis: int) -> Tensor | None:
    """The unit indices of tensors that are concatenated along an axis of units; None if others differ."""
    total, shifted = 0, []
    for index, part in zip(indices, parts, strict=True):
        wide = index.expand(*index.shape[:axis], part.shape[axis], *index.shape[axis:][1:])
        shifted.append(wide + total)
        total += int(index.max()) + 1
    if len({index.shape[:axis] + index.shape[axis:][1:] for index in shifted}) > 1:
        return None
    return torch.cat(shifted, axis)


def _groups(origins: Sequence[Origin]) -> list[set[Producer]]:
    """The producers of several tensors, together where tensors share one: the steps of a cell do."""
    groups: list[set[Producer]] = []
    for origin in origins:
        shared = [group for group in groups if group & set(origin.producers)]
        groups = [group for group in groups if group not in shared]
        groups.append(set(origin.producers).union(*shared))
    return groups
