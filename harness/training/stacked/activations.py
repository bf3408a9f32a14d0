"""The activations of a stack: members with the same one are a slice of it.

Each activation is a forward and a backward on the kernels that autograd itself would call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from harness.activations.table import SELU_ALPHA, SELU_SCALE
from harness.config.schema import Activation, Scaled, Sloped, Softplus
from harness.remedies.surrogate import b_silu_slope
from harness.training.models.activations import LEAKY_SWAP, Surrogate
from harness.training.stacked.parameters import Parameter

aten = torch.ops.aten


class Pair(NamedTuple):
    """forward(z, a): into a; backward(da, z, a, dz): ∂L/∂z into dz."""

    forward: Callable[[Tensor, Tensor], object]
    backward: Callable[[Tensor, Tensor, Tensor, Tensor], object]


def _elu(alpha: float, scale: float, inner: float) -> Pair:
    return Pair(
        lambda z, a: aten.elu.out(z, alpha, scale, inner, out=a),
        lambda da, z, a, dz: aten.elu_backward.grad_input(da, alpha, scale, inner, False, z, grad_input=dz),
    )


def _leaky(slope: float) -> Pair:
    return Pair(
        lambda z, a: aten.leaky_relu.out(z, slope, out=a),
        lambda da, z, a, dz: aten.leaky_relu_backward.grad_input(da, z, slope, False, grad_input=dz),
    )


def _softplus(beta: float) -> Pair:
    return Pair(
        lambda z, a: aten.softplus.out(z, beta, 20.0, out=a),
        lambda da, z, a, dz: aten.softplus_backward.grad_input(da, z, beta, 20.0, grad_input=dz),
    )


def _surrogate(alpha: float) -> Pair:
    return Pair(
        PLAIN["relu"].forward,
        lambda da, z, a, dz: torch.mul(da, b_silu_slope(z, alpha), out=dz),
    )


#: Activations whose slopes are parameters of the stack: learned, or set by a remedy → the parameter's name.
SLOPED = {"prelu": "weight", LEAKY_SWAP: "slope"}

PLAIN: dict[str, Pair] = {
    "relu": Pair(
        lambda z, a: torch.clamp_min(z, 0, out=a),  # what relu is, in half the time
        lambda da, z, a, dz: aten.threshold_backward.grad_input(da, a, 0, grad_input=dz),
    ),
    "selu": _elu(SELU_ALPHA, SELU_SCALE, 1.0),
    "silu": Pair(
        lambda z, a: aten.silu.out(z, out=a),
        lambda da, z, a, dz: aten.silu_backward.grad_input(da, z, grad_input=dz),
    ),
    "gelu": Pair(
        lambda z, a: aten.gelu.out(z, out=a),
        lambda da, z, a, dz: aten.gelu_backward.grad_input(da, z, grad_input=dz),
    ),
    "mish": Pair(
        lambda z, a: aten.mish.out(z, out=a),
        lambda da, z, a, dz: dz.copy_(aten.mish_backward(da, z)),
    ),
    "relu6": Pair(
        lambda z, a: aten.hardtanh.out(z, 0.0, 6.0, out=a),
        lambda da, z, a, dz: aten.hardtanh_backward.grad_input(da, z, 0.0, 6.0, grad_input=dz),
    ),
    "hardswish": Pair(
        lambda z, a: aten.hardswish.out(z, out=a),
        lambda da, z, a, dz: dz.copy_(aten.hardswish_backward(da, z)),
    ),
    "sigmoid": Pair(
        lambda z, a: aten.sigmoid.out(z, out=a),
        lambda da, z, a, dz: aten.sigmoid_backward.grad_input(da, a, grad_input=dz),
    ),
    "tanh": Pair(
        lambda z, a: aten.tanh.out(z, out=a),
        lambda da, z, a, dz: aten.tanh_backward.grad_input(da, a, grad_input=dz),
    ),
}


def _crelu(z: Tensor, a: Tensor) -> None:
    units = z.shape[-1]
    torch.clamp_min(z, 0, out=a[..., :units])
    torch.clamp_min(-z, 0, out=a[..., units:])


def _crelu_back(da: Tensor, z: Tensor, a: Tensor, dz: Tensor) -> None:
    units = z.shape[-1]
    left = aten.threshold_backward(da[..., :units], a[..., :units], 0)
    torch.sub(left, aten.threshold_backward(da[..., units:], a[..., units:], 0), out=dz)


PLAIN["crelu"] = Pair(_crelu, _crelu_back)


def pair(activation: Activation) -> Pair:
    """Forward and backward of an activation without parameters of its own.

    Example:
        >>> from harness.config import compose
        >>> z, a = torch.tensor([-2.0, 3.0]), torch.empty(2)
        >>> _ = pair(compose(["activation=leaky_relu"]).activation).forward(z, a)
        >>> a
        tensor([-0.0200,  3.0000])
    """
    match activation:
        case Sloped():
            return _leaky(activation.slope)
        case Scaled(name="celu"):
            return _elu(activation.alpha, 1.0, 1 / activation.alpha)
        case Scaled():
            return _elu(activation.alpha, 1.0, 1.0)
        case Softplus():
            return _softplus(activation.beta)
        case Surrogate():
            return _surrogate(activation.alpha)
    return PLAIN[activation.name]


def sloped(slope: Parameter) -> Pair:
    """Z where z > 0, else slope · z; gradients of the slopes unless these are fixed."""

    def forward(z: Tensor, a: Tensor) -> None:
        torch.where(z > 0, z, z * slope.value.unsqueeze(1), out=a)

    def backward(da: Tensor, z: Tensor, a: Tensor, dz: Tensor) -> None:
        right = z > 0
        torch.where(right, da, da * slope.value.unsqueeze(1), out=dz)
        if not slope.fixed:
            torch.sum(torch.where(right, 0.0, z * da), 1, out=slope.grad)

    return Pair(forward, backward)


def slices(activations: Sequence[Activation]) -> list[tuple[slice, Activation]]:
    """Neighbouring members with equal activations (PReLU: whatever the initial slope).

    Example:
        >>> from harness.config import compose
        >>> relu, elu = (compose([f"activation={name}"]).activation for name in ("relu", "elu"))
        >>> [(s.start, s.stop, a.name) for s, a in slices([relu, relu, elu])]
        [(0, 2, 'relu'), (2, 3, 'elu')]
    """
    found: list[tuple[slice, Activation]] = []
    for k, activation in enumerate(activations):
        last = found[-1][1] if found else None
        same = last is not None and (last == activation or last.name == activation.name == "prelu")
        if same:
            found[-1] = slice(found[-1][0].start, k + 1), found[-1][1]
        else:
            found.append((slice(k, k + 1), activation))
    return found
