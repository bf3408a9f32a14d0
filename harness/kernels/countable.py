"""Which tensors can be counted, and the exception raised for the others."""

from __future__ import annotations

import torch
from torch import Tensor

PLAIN = (Tensor, torch.nn.Parameter)


class Uncountable(ValueError):
    """A tensor whose values cannot be counted; nothing was counted.

    Args:
        reason: completes "cannot count …".
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"cannot count {reason}")
        self.reason = reason


def countable(z: Tensor) -> Tensor:
    """The tensor with its actual values in memory: lazy negations and lazy zeros are materialised.

    Raises:
        Uncountable: a nested, sparse, quantised or complex tensor, or one without values of its own.

    Example:
        >>> countable(torch.ones(2).to_sparse())
        Traceback (most recent call last):
        harness.kernels.countable.Uncountable: cannot count a tensor of layout sparse_coo
    """
    if z.is_nested:
        raise Uncountable("a nested tensor")
    if z.layout is not torch.strided:
        raise Uncountable(f"a tensor of layout {str(z.layout).removeprefix('torch.').strip('_')}")
    if z.is_quantized or z.is_complex():
        raise Uncountable(f"values of type {str(z.dtype).removeprefix('torch.')}")
    if z.is_meta:
        raise Uncountable("a tensor without values (device meta)")
    if type(z) in PLAIN and z.numel():
        try:
            address = z.data_ptr()
        except RuntimeError as error:  # inside grad or vmap
            raise Uncountable("a tensor inside a function transform") from error
        if not address:
            if not z._is_zerotensor():
                raise Uncountable("a tensor whose memory is freed")
            return torch.zeros(z.shape, dtype=z.dtype, device=z.device)
    if not has_values(z):
        raise Uncountable(f"a tensor without values ({type(z).__name__})")
    return z.resolve_neg()


def has_values(z: Tensor) -> bool:
    """Whether a tensor has values, unlike those of a trace (FakeTensor) or of the device meta.

    Example:
        >>> has_values(torch.ones(2)), has_values(torch.ones(2, device="meta"))
        (True, False)
    """
    if type(z) in PLAIN or z.is_meta or z.is_nested or z.layout is not torch.strided:
        return not z.is_meta
    return z.untyped_storage().device.type != "meta"
