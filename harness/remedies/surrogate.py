"""SUGAR: forward ReLU, backward the slope of a smooth surrogate (Horuz et al. 2025, arXiv 2505.22074).

The surrogate is B-SiLU(z) = (z + α) σ(z) - α/2 with α = 1.67; α = 0 is SiLU. A unit that is dead still has a
gradient, and so a way back. What the hooks call its gate is that of the function computed: the ReLU's.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from harness.remedies.events import RemedyEvent

KIND = "sugar"
ALPHA = 1.67


def b_silu(z: Tensor, alpha: float = ALPHA) -> Tensor:
    """B-SiLU, bounded from below as SiLU is.

    >>> b_silu(torch.zeros(1))
    tensor([0.])
    """
    return (z + alpha) * torch.sigmoid(z) - alpha / 2


def b_silu_slope(z: Tensor, alpha: float = ALPHA) -> Tensor:
    """Its derivative, σ + (z + α) σ (1 - σ).

    >>> b_silu_slope(torch.zeros(1))
    tensor([0.9175])
    """
    s = torch.sigmoid(z)
    return s + (z + alpha) * s * (1 - s)


class _Swapped(torch.autograd.Function):
    """ReLU there, the surrogate's slope back."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, alpha: float) -> Tensor:
        ctx.save_for_backward(z)
        ctx.alpha = alpha
        return torch.relu(z)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (z,) = ctx.saved_tensors
        return gradients[0] * b_silu_slope(z, ctx.alpha), None


class Sugar(nn.ReLU):
    """ReLU with a surrogate gradient; to the hooks it is a ReLU.

    Args:
        alpha: α of B-SiLU.

    Example:
        >>> z = torch.tensor([-1.0, 2.0], requires_grad=True)
        >>> Sugar()(z).sum().backward()
        >>> z.grad
        tensor([0.4007, 1.2661])
    """

    gate_of = nn.ReLU

    def __init__(self, alpha: float = ALPHA) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, input: Tensor) -> Tensor:
        out = _Swapped.apply(input, self.alpha)
        assert isinstance(out, Tensor)
        return out

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}"


def sugar(model: nn.Module, *, alpha: float = ALPHA) -> list[RemedyEvent]:
    """Give every module `nn.ReLU` (of exactly that class) of a model a surrogate gradient; in place.

    Raises:
        ValueError: alpha is not a finite number, or there is no such module.

    Example:
        >>> model = nn.Sequential(nn.Linear(1, 1), nn.ReLU())
        >>> sugar(model)[0].detail, model[1]
        ('backward: the slope of B-SiLU, alpha 1.67', Sugar(alpha=1.67))
    """
    if not isinstance(alpha, int | float) or not abs(alpha) < float("inf"):
        raise ValueError(f"alpha: expected a finite number, but got {alpha!r}")
    found = 0
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.ReLU:
                setattr(parent, name, Sugar(alpha))
                found += 1
    if not found:
        raise ValueError("expected a model with modules nn.ReLU in it, but there is none")
    return [describe(alpha)]


def describe(alpha: float) -> RemedyEvent:
    """What is told of it."""
    return RemedyEvent(KIND, "", 0, f"backward: the slope of B-SiLU, alpha {alpha:g}")
