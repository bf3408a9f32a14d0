"""Copies of units: entries of one unit that get weights or constants of their own are units of their own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor

from harness.graph import units
from harness.graph.origin import Origin, application
from harness.graph.producers import Producer


def spans(weights: Tensor, axis: int) -> bool:
    """Whether weights differ along an axis; they do not where it was expanded."""
    return weights.shape[axis] > 1 and weights.stride(axis) != 0


def with_own_weights(origin: Origin, weights: Sequence[tuple[Tensor, Producer]], out: Tensor) -> Origin:
    """The origin of `out`, to whose entries weights were added, or which they multiplied.

    Weights of positions differ along several axes, and do not distinguish copies.
    """
    index = origin.units
    if index is None or not weights:
        return origin
    axes = [[a for a in range(-min(t.ndim, out.ndim), 0) if spans(t, a)] for t, _ in weights]
    own = {one[0] for one in axes if len(one) == 1 and units.repeats(index, one[0])}
    if not own:
        return origin
    producers = tuple(dict.fromkeys((*origin.producers, *(w for _, w in weights))))
    return _anew(origin._replace(producers=producers), own, out)


def have_knots(constants: Iterable[Tensor], operands: Sequence[Tensor], out: Tensor) -> bool:
    """Whether constants make a new last axis: hinges x[..., None] - knots, each of which is a unit."""
    new = len(operands) == 1 and operands[0].ndim == out.ndim > 0 and operands[0].shape[-1] == 1
    return new and any(t.ndim and t.numel() == t.shape[-1] == out.shape[-1] > 1 for t in constants)


def at_knots(origin: Origin, out: Tensor) -> Origin:
    """The origin of hinges, from that of what the knots were subtracted from."""
    return origin if origin.units is None else _anew(origin, {-1}, out)


def _anew(origin: Origin, axes: set[int], out: Tensor) -> Origin:
    """New units along some axes and those along which they change already."""
    assert origin.units is not None
    sizes = {axis: out.shape[axis] for axis in axes.union(units.varying(origin.units))}
    index = units.fresh_along(out.ndim, sizes)
    return origin._replace(units=index, part=True, applied=application())
