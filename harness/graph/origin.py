"""Origin: what is known of where a tensor comes from, and what layers, reductions and moves make of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from harness.graph import operations as ops
from harness.graph import units
from harness.graph.operations import tensors_in
from harness.graph.producers import Producer
from harness.graph.unit_connections import UnitConnections


class Origin(NamedTuple):
    """What is known about a tensor.

    Attributes:
        producers: the nearest weights that made it; those behind an activation only if there are no others.
        units: index of each entry's unit (see `units`), None if unknown.
        activated: whether it is the output of an activation.
        summed: whether something with another origin was added to it (a residual sum).
        part: whether it holds only some of its producer's units.
        term: whether its units were summed away.
        reason: why its units are unknown, "" if they are known.
        direct: whether only norms, dropout, moves and residual sums lie between it and a layer's output.
        connections: connections of its units, where they are recorded.
        applied: the applications of weights that made it (see `application`).
        path: names of the functions between them and it, without moves and copies.
        scaled: whether it is a product, entry by entry, with weights along whose axes a sum is still to come.
    """

    producers: tuple[Producer, ...] = ()
    units: Tensor | None = None
    activated: bool = False
    summed: bool = False
    part: bool = False
    term: bool = False
    reason: str = ""
    direct: bool = False
    connections: UnitConnections | None = None
    applied: frozenset[object] = frozenset()
    path: tuple[str, ...] = ()
    scaled: bool = False


DATA = Origin()  # an input of the model


def application() -> frozenset[object]:
    """One application of weights, different from all others."""
    return frozenset((object(),))


def made(weights: list[tuple[Tensor, Producer]], out: Tensor, *axes: int) -> Origin:
    """The output of a layer whose units lie along these axes, from the end."""
    matrices = [(t, w) for t, w in weights if t.ndim > 1] or weights
    producers = tuple(dict.fromkeys(_layer_of(t, w, weights) for t, w in matrices))
    inside = out.ndim >= -min(axes)
    index = units.fresh_along(out.ndim, {axis: out.shape[axis] for axis in axes}) if inside else None
    part = len(axes) > 1 or any(producer.part for producer in producers)
    return Origin(producers, index, part=part, direct=True, applied=application())


def _layer_of(matrix: Tensor, own: Producer, weights: list[tuple[Tensor, Producer]]) -> Producer:
    """The owner of a weight; of layers that share it, the one whose bias is used."""
    for _, other in weights:
        if other is not own and any(p is matrix for p in other.module._parameters.values()):
            return other
    return own


def reduced(
    name: str, source: Origin, x: Tensor, args: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor
) -> Origin:
    """The result of a reduction, which has units if their axes remain."""
    if source.units is None:
        return source if source.term else source._replace(units=None)
    dims = ops.dims_of(args, kwargs)
    chosen = range(x.ndim) if dims is None else [d % x.ndim for d in dims]
    index = source.units
    if source.scaled:  # the second half of a matrix product that is written out
        source = source._replace(scaled=False)
        for d in chosen:
            index = index.narrow(d, 0, 1)
    if any(index.shape[d] > 1 for d in chosen):
        kept = {d - x.ndim: size for d, size in enumerate(index.shape) if size > 1 and d not in chosen}
        mixed = len(torch.unique(index)) < index.numel()  # pixels of channels that were shuffled, say
        squares = name not in ops.EXTREMES and not ops.SQUARES.isdisjoint(source.path)
        if not kept or name not in ops.POOLINGS or mixed or squares:
            return source._replace(units=None, term=True)
        index = units.fresh_along(x.ndim, kept)  # maxout, or a mean over heads: several pieces make a unit
        source = source._replace(part=True, summed=True)
    if out.ndim < x.ndim:
        for d in sorted(chosen, reverse=True):
            index = index.select(d, 0)
    return source._replace(units=index) if index.ndim == out.ndim else source._replace(units=None)


def normed(
    name: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    before: Origin,
    x: Tensor,
    weights: Sequence[tuple[Tensor, Producer]],
    out: Tensor,
) -> Origin:
    """The result of a norm, whose own weights make the units, if it has any."""
    if out.ndim != x.ndim:
        return Origin()
    producers = tuple(dict.fromkeys(w for _, w in weights)) or before.producers
    axis = 1 - out.ndim if name in ops.CHANNEL_NORMS else -1
    if _are_finer(before.units, out, axis):  # a norm of parts of them: its weights are shared by several
        return Origin(before.producers, before.units, direct=True, applied=before.applied)
    if name in ops.CHANNEL_NORMS:
        known, own = before.units, any(isinstance(t, nn.Parameter) for t, _ in weights)
        if known is not None and not own and units.repeats(known, 1 - out.ndim):  # inputs side by side
            return Origin(producers, known, part=True, direct=True, applied=before.applied)
        channels = units.fresh(out.ndim, 1 - out.ndim, out.shape[1])
        return Origin(producers, channels, direct=True, applied=before.applied)
    shape = args[1] if len(args) > 1 else kwargs.get("normalized_shape", (0,))
    axes = len(shape) if isinstance(shape, Sequence) else 1
    if axes == 1:
        last = units.fresh(out.ndim, -1, out.shape[-1])
        return Origin(producers, last, direct=True, applied=before.applied)
    known = before.units
    index = known if known is not None else units.fresh(out.ndim, -axes, out.shape[-axes])
    return Origin(producers, index, direct=True, applied=before.applied)


def _are_finer(index: Tensor | None, out: Tensor, axis: int) -> bool:
    """Whether every place of an input is a unit of its own, and there are more of them than along an axis."""
    if index is None or index.ndim != out.ndim or not out.shape[axis] < index.numel():
        return False
    return len(torch.unique(index)) == index.numel() and units.fits(index, out.shape)


def moved(
    name: str,
    function: Callable[..., Any],
    source: Origin,
    x: Tensor,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    outs: list[Tensor],
) -> Iterable[Origin]:
    """Functions that move entries, applied to the unit indices."""
    if source.units is None:
        return [source] * len(outs)
    given = list(tensors_in([*args[1:], *kwargs.values()]))
    if given and name == "__getitem__" and isinstance(args[1], Tensor):
        return [source._replace(units=units.selected(source.units, given[0], one.ndim)) for one in outs]
    if any(not a.is_cpu for a in given):  # unit indices are on the CPU
        return [source._replace(units=None)] * len(outs)
    full = source.units.expand(_filled(x))
    try:
        with torch.no_grad():
            if name in ops.TURNS:
                done = getattr(full, name)
            else:
                done = function(full.contiguous() if name == "view" else full, *args[1:], **kwargs)
    except RuntimeError:
        if x.numel():
            raise
        return [source._replace(units=None)] * len(outs)
    found = list(tensors_in([done]))
    if [_filled(t) for t in found] != [_filled(t) for t in outs]:
        return [source._replace(units=None)] * len(outs)
    indices = [units.compact(t) for t in found]
    return [source._replace(units=i, part=source.part or i.numel() < source.units.numel()) for i in indices]


def adapted(origin: Origin, out: Tensor) -> Origin:
    """The output of attention, with the units of its values."""
    index = origin.units
    return origin._replace(units=index if units.fits(index, out.shape) else None, activated=False)


def _filled(tensor: Tensor) -> list[int]:
    """The shape with empty axes as 1: a batch without inputs still has units."""
    return [max(1, size) for size in tensor.shape]
