"""The activations of a stack: members with the same activation form a slice.

Each activation has a forward and a backward function. They call autograd's own kernels if the activation's
record names them, otherwise autograd.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from harness.activations.registry import RECORDS
from harness.config.schema import Activation
from harness.remedies.surrogate import b_silu_slope
from harness.training.models.activations import LEAKY_SWAP, Surrogate, make_activation
from harness.training.stacked.parameters import Parameter

aten = torch.ops.aten


class Pair(NamedTuple):
    """forward(z, a) writes the activation to a; backward(da, z, a, dz) writes ∂L/∂z to dz."""

    forward: Callable[[Tensor, Tensor], object]
    backward: Callable[[Tensor, Tensor, Tensor, Tensor], object]


def _kernel(name: str, constants: tuple[float, ...]) -> Pair:
    """Use the aten kernels `name.out` and `name_backward`, writing into given memory where supported."""
    forward, back = getattr(aten, name).out, getattr(aten, f"{name}_backward")
    into = back.grad_input if "grad_input" in back.overloads() else None
    of_output = name in ("sigmoid", "tanh")  # their backward takes the output instead of the input
    signatures = {"elu": ((*constants, False), ()), "leaky_relu": ((), (*constants, False))}
    before, after = signatures.get(name, ((), constants))

    def backward(da: Tensor, z: Tensor, a: Tensor, dz: Tensor) -> None:
        given = (da, *before, a if of_output else z, *after)
        if into is None:
            dz.copy_(back(*given))
        else:
            into(*given, grad_input=dz)

    return Pair(lambda z, a: forward(z, *constants, out=a), backward)


def _by_autograd(module: nn.Module) -> Pair:
    """Use autograd for any module without parameters, with units on the last axis."""

    def backward(da: Tensor, z: Tensor, a: Tensor, dz: Tensor) -> None:
        with torch.enable_grad():
            leaf = z.detach().requires_grad_()
            dz.copy_(torch.autograd.grad(module(leaf), leaf, da)[0])

    return Pair(lambda z, a: a.copy_(module(z)), backward)


def _surrogate(alpha: float) -> Pair:
    return Pair(
        OWN["relu"].forward,
        lambda da, z, a, dz: torch.mul(da, b_silu_slope(z, alpha), out=dz),
    )


#: Activations whose slopes, learned or set by a remedy, are parameters of the stack → the parameter's name.
SLOPED = {"prelu": "weight", LEAKY_SWAP: "slope"}


def _crelu(z: Tensor, a: Tensor) -> None:
    units = z.shape[-1]
    torch.clamp_min(z, 0, out=a[..., :units])
    torch.clamp_min(-z, 0, out=a[..., units:])


def _crelu_back(da: Tensor, z: Tensor, a: Tensor, dz: Tensor) -> None:
    units = z.shape[-1]
    left = aten.threshold_backward(da[..., :units], a[..., :units], 0)
    torch.sub(left, aten.threshold_backward(da[..., units:], a[..., units:], 0), out=dz)


#: Hand-written, because this is faster.
OWN = {
    "relu": Pair(
        lambda z, a: torch.clamp_min(z, 0, out=a),  # same as relu, in half the time
        lambda da, z, a, dz: aten.threshold_backward.grad_input(da, a, 0, grad_input=dz),
    ),
    "crelu": Pair(_crelu, _crelu_back),
}


def pair(activation: Activation) -> Pair:
    """Return forward and backward of an activation without parameters in the stack.

    Example:
        >>> from harness.config import compose
        >>> z, a = torch.tensor([-2.0, 3.0]), torch.empty(2)
        >>> _ = pair(compose(["activation=leaky_relu"]).activation).forward(z, a)
        >>> a
        tensor([-0.0200,  3.0000])
    """
    if isinstance(activation, Surrogate):
        return _surrogate(activation.alpha)
    if activation.name in OWN:
        return OWN[activation.name]
    record, module = RECORDS[activation.name], make_activation(activation, 1)
    if record.kernel is None:
        return _by_autograd(module)
    parameters = {name: getattr(module, name, default) for name, default in record.parameters.items()}
    return _kernel(record.kernel, record.constants(parameters))


def sloped(slope: Parameter) -> Pair:
    """Return forward and backward of z where z > 0, else slope · z; fixed slopes get no gradient."""

    def forward(z: Tensor, a: Tensor) -> None:
        torch.where(z > 0, z, z * slope.value.unsqueeze(1), out=a)

    def backward(da: Tensor, z: Tensor, a: Tensor, dz: Tensor) -> None:
        right = z > 0
        torch.where(right, da, da * slope.value.unsqueeze(1), out=dz)
        if not slope.fixed:
            torch.sum(torch.where(right, 0.0, z * da), 1, out=slope.grad)

    return Pair(forward, backward)


def slices(activations: Sequence[Activation]) -> list[tuple[slice, Activation]]:
    """Group neighbouring members with equal activations (PReLU with any initial slope).

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
