"""The optimizer steps of `updates.py` as torch operations, for stacks on a GPU.

Legend: M members, P numbers each. Values, gradients and moments are (M, P), all other tensors (M, 1) float64;
`scale` is the factor by which clipping scales the gradients.
"""

from __future__ import annotations

import torch
from torch import Tensor


def sgd(value: Tensor, grad: Tensor, scale: Tensor, lr: Tensor, decay: Tensor) -> None:
    """SGD: value -= lr (grad · scale + decay · value).

    Example:
        >>> value, one = torch.ones(2, 3), torch.ones(2, 1, dtype=torch.float64)
        >>> sgd(value, torch.ones(2, 3), one, 0.5 * one, 0 * one)
        >>> value[0]
        tensor([0.5000, 0.5000, 0.5000])
    """
    kind = value.dtype
    value.sub_(_decayed(value, grad, scale, decay).mul_(lr.to(kind)))


def momentum(
    value: Tensor,
    grad: Tensor,
    buffer: Tensor,
    scale: Tensor,
    lr: Tensor,
    decay: Tensor,
    friction: Tensor,
    nesterov: Tensor,
    first: bool,
) -> None:
    """SGD with momentum; `first` sets the buffer to the gradient."""
    kind = value.dtype
    d, f = _decayed(value, grad, scale, decay), friction.to(kind)
    if first:
        buffer.copy_(d)
    else:
        buffer.mul_(f).add_(d)
    value.sub_(torch.where(nesterov != 0, d + f * buffer, buffer).mul_(lr.to(kind)))


def adam(
    value: Tensor,
    grad: Tensor,
    mean: Tensor,
    square: Tensor,
    scale: Tensor,
    lr: Tensor,
    decay: Tensor,
    beta1: Tensor,
    beta2: Tensor,
    decoupled: bool,
    step: Tensor,
) -> None:
    """Adam, or AdamW if `decoupled`; `step` counts from 1."""
    kind = value.dtype
    if decoupled:
        value.mul_((1 - lr * decay).to(kind))
    d = _decayed(value, grad, scale, torch.zeros_like(decay) if decoupled else decay)
    mean.lerp_(d, (1 - beta1).to(kind))
    square.mul_(beta2.to(kind)).addcmul_((1 - beta2).to(kind) * d, d)
    size, root = lr / (1 - beta1**step), (1 - beta2**step).sqrt()
    value.sub_(mean * size.to(kind) / (square.sqrt() / root.to(kind)).add_(1e-8))


def _decayed(value: Tensor, grad: Tensor, scale: Tensor, decay: Tensor) -> Tensor:
    return (grad * scale.to(value.dtype)).addcmul_(value, decay.to(value.dtype))
