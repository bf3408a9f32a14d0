"""Activations that are written out by hand: `z * (z > 0)`, `torch.where(z > 0, z, 0)`, `z[z < 0] = 0`."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from harness.graph.operations import COPIES

BY_HAND = (
    "a threshold written by hand: call `F.relu`, or move it into a function and declare that with "
    "harness.declare_activation"
)
COMPARISONS = {"gt", "ge", "lt", "le", "__gt__", "__ge__", "__lt__", "__le__"}
CHOICES = {"mul", "mul_", "__mul__", "__rmul__", "__imul__"}
CHOICES |= {"where", "masked_fill", "masked_fill_", "__setitem__"}


class HandThresholds:
    """Finds them in one traced forward; keeps no tensor alive."""

    def __init__(self) -> None:
        self._masks: dict[int, tuple[weakref.ref[Tensor], weakref.ref[Tensor]]] = {}  # mask → compared tensor

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
        if name in COMPARISONS:
            z = tensors[0]
            if z.is_floating_point() and (len(tensors) == 1 or tensors[1].numel() == 1):
                self._put(out, z)
        elif name in COPIES and (compared := self._compared(tensors[0])) is not None:
            self._put(out, compared)
        elif name in CHOICES:
            for mask in tensors:
                compared = self._compared(mask)
                if compared is not None and any(one is compared for one in tensors):
                    return compared
        return None

    def _put(self, mask: Any, z: Tensor) -> None:
        if isinstance(mask, Tensor):
            self._masks[id(mask)] = weakref.ref(mask), weakref.ref(z)

    def _compared(self, mask: Tensor) -> Tensor | None:
        found = self._masks.get(id(mask))
        return found[1]() if found is not None and found[0]() is mask else None
