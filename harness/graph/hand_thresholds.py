"""Activations that are written out by hand: `z * (z > 0)`, `torch.where(z > 0, z, 0)`, `z[z < 0] = 0`."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from harness.graph.operations import COPIES
from harness.graph.tensor_map import TensorMap

BY_HAND = (
    "a threshold written by hand: call `F.relu`, or move it into a function and declare that with "
    "harness.declare_activation"
)
COMPARISONS = {"gt", "ge", "lt", "le", "__gt__", "__ge__", "__lt__", "__le__", "heaviside"}
NEGATIONS = {"logical_not", "bitwise_not", "__invert__"}
PRODUCTS = {"mul", "mul_", "__mul__", "__rmul__", "__imul__"}
CHOICES = PRODUCTS | {"where", "masked_fill", "masked_fill_", "__setitem__"}
EXTREMES = {"maximum", "minimum", "fmax", "fmin", "max", "min"}

Sources = TensorMap[weakref.ref[Tensor]]


class HandThresholds:
    """Finds them in one traced forward; keeps no tensor alive."""

    def __init__(self) -> None:
        self._masks = Sources()  # mask → compared tensor
        self._images = Sources()  # copy, multiple or activation of a tensor → that tensor

    def of(self, name: str, args: Sequence[Any], out: Any) -> Tensor | None:
        """The tensor that a call passes on where it is beyond a threshold, and nowhere else; None if none.

        Args:
            name: name of the function.
            args: its arguments.
            out: its result.

        Example:
            >>> import torch
            >>> found, z = HandThresholds(), torch.randn(3)
            >>> open = z > 0
            >>> found.of("gt", (z, 0), open), found.of("mul", (z, open), z * open) is z
            (None, True)
        """
        tensors = [one for one in args if isinstance(one, Tensor)]
        if not tensors:
            return None
        first, compared = tensors[0], _source(self._masks, tensors[0])
        if name in COMPARISONS:  # with a number, or with one for each unit
            if first.is_floating_point() and (len(tensors) == 1 or tensors[1].numel() < first.numel()):
                _put(self._masks, out, self._original(first))
        elif name in COPIES or name in NEGATIONS or name == "detach":
            if compared is not None:
                _put(self._masks, out, compared)
            else:
                self.note(out, first)
        elif name in PRODUCTS and len(tensors) == 1:
            self.note(out, first)
        elif name in EXTREMES and len(tensors) == 2:
            one, other = map(self._original, tensors)
            return one if one is other and tensors[0] is not tensors[1] else None
        elif name in CHOICES:
            originals = [self._original(one) for one in tensors]
            for mask in tensors:
                compared = _source(self._masks, mask)
                if compared is not None and any(one is compared for one in originals):
                    return compared
        return None

    def note(self, image: Any, z: Tensor) -> None:
        """Record a copy, a multiple or an activation of a tensor."""
        if image is not z:
            _put(self._images, image, self._original(z))

    def _original(self, tensor: Tensor) -> Tensor:
        found = _source(self._images, tensor)
        return tensor if found is None else found


def _put(sources: Sources, tensor: Any, source: Tensor) -> None:
    if isinstance(tensor, Tensor):
        sources.put(tensor, weakref.ref(source))


def _source(sources: Sources, tensor: Tensor) -> Tensor | None:
    found = sources.get(tensor)
    return None if found is None else found()
