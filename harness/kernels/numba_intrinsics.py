"""What numba itself lacks for compiled loops: values at an address, and a maximum that LLVM vectorises.

Numba's cache of a loop does not see changes of a file that the loop imports: after a change here, delete the
`__pycache__` of the callers.
"""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np
import torch
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.numpy_support import carray

REORDER = {"reassoc", "contract", "nsz"}  # allows vectorised sums; NaN and infinities keep their meaning
#: Arrays whose dtype is meant, for `values`.
WHOLE, SINGLE, DOUBLE = np.zeros(1, np.int64), np.zeros(1, np.float32), np.zeros(1, np.float64)
LIKE = {torch.float32: SINGLE, torch.float64: DOUBLE}


def _as_pointer(typing_context: Any, address: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), code


def _as_maximum(typing_context: Any, a: Any, b: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        no_nan = ("nnan", "nsz")
        return builder.select(builder.fcmp_ordered(">", *args, flags=no_nan), *args, flags=no_nan)

    return a(a, a), code


_void: Any = intrinsic(_as_pointer)
# The larger of two, undefined if one is NaN: otherwise LLVM would not vectorise a maximum. A unit with a NaN
# has a NaN sum and is counted again anyway.
larger: Any = intrinsic(_as_maximum)


@nb.njit(cache=True)
def values(address, size, like):
    """The `size` values at an address, with the dtype of the array `like`."""
    return carray(_void(address), size, like.dtype)
