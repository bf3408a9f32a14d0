"""Masks: whether exact zeros that forwards multiply by, or masks that they apply, stop a gradient."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

SMALL = 1e-3  # stands for an exact zero: it lets gradients pass, and changes what follows little
PRODUCTS = {"mul", "__mul__", "__rmul__", "multiply", "matmul", "__matmul__", "__rmatmul__", "bmm"}
IN_PLACE = {"mul_", "__imul__", "multiply_"}


class OpenedMasks(TorchFunctionMode):
    """Context manager: products take exact zeros for small numbers, and masks let everything through."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name, given = getattr(function, "__name__", ""), dict(kwargs or {})
        if name in PRODUCTS or name in IN_PLACE:
            first = args[:1] if name in IN_PLACE else tuple(map(_opened, args[:1]))
            args = (*first, *map(_opened, args[1:]))
            given = {key: _opened(value) if key == "other" else value for key, value in given.items()}
        elif name == "masked_fill":
            return args[0] * 1
        elif name == "where" and len(args) == 3:
            return function(*args, **given) + SMALL * sum(a for a in args[1:] if _is_float(a))
        return function(*args, **given)


def _opened(factor: Any) -> Any:
    """A factor without exact zeros; a Boolean one becomes a number."""
    if isinstance(factor, Tensor) and factor.dtype == torch.bool:
        factor = factor.to(torch.get_default_dtype())
    return torch.where(factor == 0, SMALL, factor) if _is_float(factor) else factor


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()
