"""Whether a tensor that a model compares with is zero, without asking a GPU for it at every step."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from weakref import ref

import torch
from torch import Tensor

OUTSIDE = str(Path(__file__).parent), str(Path(torch.__file__).parent)


class Zeros:
    """Knows which call sites compare with zero: `torch.maximum(x, zeros)`.

    On the CPU every tensor is looked at. Elsewhere a look would wait for the device, so each call site is
    looked at once, and again if its tensor is the same one as before but was written to since.

    Example:
        >>> zeros = Zeros()
        >>> zeros.is_zero(torch.zeros(3), None), zeros.is_zero(torch.ones(3), None)
        (True, False)
    """

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], tuple[ref[Tensor], int, bool]] = {}

    def is_zero(self, tensor: Tensor, owner: Any) -> bool:
        """Whether all of it is 0; `owner` calls: the same code may run for several with other constants."""
        if tensor.is_cpu:
            return not bool(tensor.any())
        version = 0 if tensor.is_inference() else tensor._version
        place = owner, *_place()
        if place in self._known:
            before, written, zero = self._known[place]
            if before() is not tensor or written == version:
                return zero
        zero = not bool(tensor.any())
        self._known[place] = ref(tensor), version, zero
        return zero


def _place() -> tuple[Any, int]:
    """Where the call stands in the user's code: a code object and a position in it."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(OUTSIDE):
        frame = frame.f_back
    return frame.f_code, frame.f_lasti
