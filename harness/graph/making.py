"""How a pre-activation was made: by which weights, and with which unit layout."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from harness.graph.autograd import NORMS, Ancestry, Leaf
from harness.graph.origin import Origin
from harness.graph.producers import Producer
from harness.graph.provenance import TensorProvenance
from harness.graph.units import UnitLayout, layout_of

NO_PATTERN = "its units lie in no regular pattern"


class Making(NamedTuple):
    """What is known about a pre-activation.

    Attributes:
        producers: the weights that made it.
        layout: layout of its units.
        exact: whether unit i is unit i of the only producer.
        guessed: whether the unit axis is a guess.
        term: whether the units were summed away before.
        reason: why its units are unknown, "" if they are known.
        constant: whether it depends on nothing known, not even on an input.
    """

    producers: tuple[Producer, ...]
    layout: UnitLayout
    exact: bool = True
    guessed: bool = False
    term: bool = False
    reason: str = ""
    constant: bool = False


def making(z: Tensor, origin: Origin | None, found: Ancestry, provenance: TensorProvenance) -> Making:
    """How z was made.

    Args:
        z: the pre-activation.
        origin: its origin in the followed forward; None if it was not followed (made by a scripted part,
            say).
        found: its nearest parameters according to autograd.
        provenance: knows the model's parameters.
    """
    if origin is None or not (origin.producers or origin.units is not None or origin.term or origin.reason):
        seen = _by_autograd(z, found, provenance)
        if seen is not None:
            return seen
    constant = origin is None
    origin = origin or Origin()
    if origin.units is not None and origin.units.ndim == z.ndim:
        layout = layout_of(origin.units)
        if layout is None:
            return Making(origin.producers, guess(z.shape), exact=False, guessed=True, reason=NO_PATTERN)
        exact = not (origin.summed or origin.part or layout.rows)
        return Making(origin.producers, layout, exact, reason=origin.reason)
    return Making(
        origin.producers,
        guess(z.shape),
        exact=not (origin.summed or origin.part),
        guessed=True,
        term=origin.term,
        reason=origin.reason,
        constant=constant,
    )


def guess(shape: torch.Size) -> UnitLayout:
    """The likely unit layout if nothing is known: the last axis, or the channels of images.

    >>> guess(torch.Size([2, 5])).axes, guess(torch.Size([2, 3, 4, 4])).axes, guess(torch.Size([])).axes
    ((-1,), (-3,), ())
    """
    if not shape:
        return UnitLayout((), 1)
    axis = -1 if len(shape) <= 3 else 1 - len(shape)
    return UnitLayout((axis,), shape[axis])


def _by_autograd(z: Tensor, found: Ancestry, provenance: TensorProvenance) -> Making | None:
    """The making of a tensor that was not followed, from the nearest layer in autograd's graph."""
    known = [(leaf, p) for leaf in found.leaves if (p := provenance.weights.of(leaf.variable)) is not None]
    if not known:
        return None
    producers = tuple(dict.fromkeys(p for _, p in known))
    leaf = min((leaf for leaf, _ in known), key=lambda one: len(one.path))
    axis = _axis(z, leaf)
    if axis is None:
        return Making(producers, guess(z.shape), len(producers) == 1, guessed=True)
    layout = UnitLayout((axis,), z.shape[axis])
    return Making(producers, layout, len(producers) == 1, guessed=len(leaf.layer) > 1)


def _axis(z: Tensor, leaf: Leaf) -> int | None:
    channels = "Conv" in leaf.kind or (leaf.kind in NORMS and leaf.kind != "NativeLayerNorm")
    axis = 1 - z.ndim if channels else -1
    fits = z.ndim >= -axis and z.ndim > 0 and z.shape[axis] in leaf.variable.shape
    return axis if fits else None
