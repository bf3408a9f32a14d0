"""SUGAR: ReLU forward, the slope of a smooth surrogate backward (Horuz et al. 2025, arXiv 2505.22074).

The surrogate is B-SiLU(z) = (z + α) σ(z) - α/2 with α = 1.67; α = 0 is SiLU. A dead unit still gets a
gradient, so it can recover. Hooks report the gate of the forward function, the ReLU.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from harness.remedies.events import RemedyEvent
from harness.remedies.swapping import put

KIND = "sugar"
ALPHA = 1.67


def b_silu(z: Tensor, alpha: float = ALPHA) -> Tensor:
    """B-SiLU, bounded from below like SiLU.

    >>> b_silu(torch.zeros(1))
    tensor([0.])
    """
    return (z + alpha) * torch.sigmoid(z) - alpha / 2


def b_silu_slope(z: Tensor, alpha: float = ALPHA) -> Tensor:
    """Derivative of B-SiLU, σ + (z + α) σ (1 - σ).

    >>> b_silu_slope(torch.zeros(1))
    tensor([0.9175])
    """
    s = torch.sigmoid(z)
    return s + (z + alpha) * s * (1 - s)


class _Swapped(torch.autograd.Function):
    """ReLU forward, the surrogate's slope backward."""

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
    """ReLU with a surrogate gradient; hooks treat it as a ReLU.

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
    """Give every module of exactly the class `nn.ReLU` a surrogate gradient, in place.

    Raises:
        ValueError: alpha is not a finite number, or there is no such module.

    Example:
        >>> model = nn.Sequential(nn.Linear(1, 1), nn.ReLU())
        >>> sugar(model)[0].detail, model[1]
        ('backward: the slope of B-SiLU, alpha 1.67', Sugar(alpha=1.67))
    """
    if not isinstance(alpha, int | float) or not abs(alpha) < float("inf"):
        raise ValueError(f"alpha: expected a finite number, but got {alpha!r}")
    found = [module for module in model.modules() if type(module) is nn.ReLU]
    for module in found:
        put(model, module, Sugar(alpha))
    if not found:
        raise ValueError("expected a model with modules nn.ReLU in it, but there is none")
    return [describe(alpha)]


def describe(alpha: float) -> RemedyEvent:
    """Return the event that reports the swap."""
    return RemedyEvent(KIND, "", 0, f"backward: the slope of B-SiLU, alpha {alpha:g}")
