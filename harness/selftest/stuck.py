"""Units held in the flat part of their activation are dead by the gate; those on a slope never are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from harness.selftest.case import Case, normal, sequential
from harness.selftest.truth import site


class Flat(NamedTuple):
    """An activation with pre-activations at which its slope is below 1e-6, and others at which it is not."""

    make: Callable[[], nn.Module]
    closed: Sequence[float]
    open: Sequence[float]
    function: Callable[[Tensor], Tensor] | None = None  # if the module draws or learns its slope


def leaky(z: Tensor) -> Tensor:
    return torch.where(z > 0, z, 0.2 * z)


FLATS: dict[str, Flat] = {
    "relu": Flat(nn.ReLU, (-1.0, 0.0), (1.0,)),
    "leaky_relu always negative": Flat(nn.LeakyReLU, (), (-5.0, -50.0)),
    "leaky_relu of slope 0": Flat(lambda: nn.LeakyReLU(0.0), (-5.0,), (1.0,)),
    "prelu always negative": Flat(nn.PReLU, (), (-3.0, -1.0), leaky),
    "prelu per unit": Flat(lambda: nn.PReLU(6), (), (-5.0,), leaky),
    "rrelu always negative": Flat(nn.RReLU, (), (-5.0,), leaky),
    "elu": Flat(nn.ELU, (-40.0,), (-1.0,)),
    "elu of alpha 3": Flat(lambda: nn.ELU(3.0), (-40.0,), (-10.0,)),
    "selu": Flat(nn.SELU, (-40.0,), (-1.0,)),
    "celu of alpha 4": Flat(lambda: nn.CELU(4.0), (-100.0,), (-30.0,)),
    "silu": Flat(nn.SiLU, (-40.0,), (-5.0, 1.0)),
    "gelu": Flat(nn.GELU, (-10.0,), (-2.0, 1.0)),
    "gelu tanh": Flat(lambda: nn.GELU("tanh"), (-10.0,), (-2.0, 1.0)),
    "mish": Flat(nn.Mish, (-40.0,), (-5.0, 1.0)),
    "softplus": Flat(nn.Softplus, (-40.0,), (-5.0, 1.0)),
    "softplus of beta 3": Flat(lambda: nn.Softplus(3.0), (-10.0,), (-2.0, 1.0)),
    "relu6": Flat(nn.ReLU6, (-1.0, 9.0), (3.0,)),
    "hardtanh": Flat(nn.Hardtanh, (-3.0, 3.0), (0.1,)),
    "hardswish": Flat(nn.Hardswish, (-5.0,), (1.0, 5.0)),
    "hardsigmoid": Flat(nn.Hardsigmoid, (-5.0, 5.0), (0.1,)),
    "sigmoid": Flat(nn.Sigmoid, (-40.0, 40.0), (-5.0, 5.0)),
    "tanh": Flat(nn.Tanh, (-20.0, 20.0), (-3.0, 3.0)),
    "softsign": Flat(nn.Softsign, (-2000.0, 2000.0), (-40.0, 40.0)),
    "logsigmoid": Flat(nn.LogSigmoid, (40.0,), (-1.0, 5.0)),
    "hardshrink": Flat(nn.Hardshrink, (-0.2, 0.2), (-2.0, 2.0)),
    "softshrink": Flat(nn.Softshrink, (-0.2, 0.2), (-2.0, 2.0)),
    "tanhshrink": Flat(nn.Tanhshrink, (0.0,), (1.0,)),
    "threshold": Flat(lambda: nn.Threshold(0.5, 0.0), (-1.0, 0.2), (2.0,)),
}


def stuck(flat: Flat) -> Case:
    """A layer of six units, the first of them held at the given pre-activations."""
    held = (*flat.closed, *flat.open)

    def make() -> Any:
        layer, head = nn.Linear(4, 6), nn.Linear(6, 2)
        with torch.no_grad():
            layer.weight[: len(held)] = 0
            layer.bias[: len(held)] = torch.tensor(held)
            head.weight *= 0.02  # the held units stay where they are
        return nn.Sequential(layer, flat.make(), head)

    function = flat.function
    if function is None:
        function = flat.make()
    closed = len(flat.closed)
    alive = frozenset(range(closed, len(held)))
    true = site("1", "0", 6, *range(closed), function=function, alive=alive)
    return Case(make, (true,), normal(9, 4), sequential({1: "1"}))


CASES = {f"stuck {name}": stuck(flat) for name, flat in FLATS.items()}
