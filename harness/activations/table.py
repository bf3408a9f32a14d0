"""The activation functions: on which pre-activations the gate is open.

The gate of a unit at z is f'(z); it is open where |f'(z)| > eps. For every function here the open set is
an interval without at most one hole, so four numbers say it: a `Gate`. Gates are solved once, when a site
is first seen; the kernels then only compare.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn

from harness.activations.crelu import CReLU

INF = math.inf


class Gate(NamedTuple):
    """Open iff low < z < high and not hole_low <= z <= hole_high; never for NaN.

    `low` is a tensor of shape (units,) where units differ (PReLU).
    """

    low: float | Tensor = -INF
    high: float = INF
    hole_low: float = INF
    hole_high: float = -INF

    @property
    def has_hole(self) -> bool:
        return self.hole_low <= self.hole_high


ALWAYS = Gate()


def zero_side(left_slope: float, eps: float) -> Gate:
    """Slope 1 for z > 0, `left_slope` elsewhere: ReLU and its leaky kin; z = 0 belongs to the left."""
    return ALWAYS if abs(left_slope) > eps else Gate(low=0.0)


def exponential(alpha: float, rate: float, eps: float) -> Gate:
    """Slope `alpha rate e^(rate z)` for z <= 0, constant beyond: ELU, SELU, CELU."""
    peak = abs(alpha * rate)
    return Gate(low=math.log(eps / peak) / rate if peak > eps > 0 else (-INF if peak > eps else 0.0))


def bump(width: float) -> Gate:
    """Open within `width` on both sides of 0: sigmoid, tanh, softsign."""
    return Gate(low=-width, high=width)


def sigmoid_width(eps: float) -> float:
    """Where s(1 - s) = eps."""
    return INF if eps <= 0 else 2 * math.acosh(max(1.0, 1 / (2 * math.sqrt(eps))))


def tanh_width(eps: float) -> float:
    """Where 1 - tanh² = eps."""
    return INF if eps <= 0 else math.acosh(max(1.0, 1 / math.sqrt(eps)))


def _sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))


def gelu_slope(z: float) -> float:
    """Φ(z) + z φ(z) (Hendrycks & Gimpel 2016, 1606.08415)."""
    return 0.5 * math.erfc(-z / math.sqrt(2)) + z * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)


def gelu_tanh_slope(z: float) -> float:
    """Slope of the tanh approximation, as `nn.GELU("tanh")` computes it."""
    c, k = math.sqrt(2 / math.pi), 0.044715
    t = math.tanh(c * (z + k * z**3))
    return 0.5 * (1 + t) + 0.5 * z * (1 - t * t) * c * (1 + 3 * k * z * z)


def silu_slope(z: float) -> float:
    """σ(z)(1 + z(1 - σ(z)))."""
    s = _sigmoid(z)
    return s * (1 + z * (1 - s))


def mish_slope(z: float) -> float:
    """tanh(sp) + z (1 - tanh²(sp)) σ(z), sp = softplus(z) (Misra 2019, 1908.08681)."""
    t = math.tanh(max(z, 0) + math.log1p(math.exp(-abs(z))))
    return t + z * (1 - t * t) * _sigmoid(z)


def smooth_dip(slope: Callable[[float], float], eps: float) -> Gate:
    """A slope that falls from 1 through one root to a minimum and back to 0 from below: GELU and its kin."""

    def crossing(inside: float, outside: float, level: Callable[[float], bool]) -> float:
        for _ in range(200):
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if level(middle) else (inside, middle)
        return inside

    root = crossing(0.0, -2.0, lambda z: slope(z) > 0)
    dip = min((root - k / 100 for k in range(1, 400)), key=slope)
    if eps <= 0:
        return Gate(hole_low=root, hole_high=root)
    return Gate(
        low=crossing(dip, -800.0, lambda z: abs(slope(z)) > eps),
        hole_low=crossing(root, dip, lambda z: abs(slope(z)) <= eps),
        hole_high=crossing(root, 0.0, lambda z: abs(slope(z)) <= eps),
    )


def around(centre: float, half_width: float) -> Gate:
    """Closed within `half_width` of `centre`, open elsewhere."""
    return Gate(hole_low=centre - half_width, hole_high=centre + half_width)


def hardswish(eps: float) -> Gate:
    """Slope (2z + 3) / 6 on (-3, 3), 0 below, 1 above (Howard et al. 2019, 1905.02244)."""
    return Gate(low=-3.0, hole_low=-1.5 - 3 * eps, hole_high=-1.5 + 3 * eps)


def softplus(beta: float, eps: float) -> Gate:
    """Slope σ(βz)."""
    return Gate(low=math.log(eps / (1 - eps)) / beta if eps > 0 else -INF)


SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772

#: Module class -> (canonical name, gate of a module of that class at eps).
MODULES: dict[type[nn.Module], tuple[str, Callable[..., Gate]]] = {
    nn.ReLU: ("relu", lambda m, eps: zero_side(0.0, eps)),
    nn.LeakyReLU: ("leaky_relu", lambda m, eps: zero_side(m.negative_slope, eps)),
    nn.RReLU: ("rrelu", lambda m, eps: zero_side(max(abs(m.lower), abs(m.upper)), eps)),
    nn.PReLU: ("prelu", lambda m, eps: prelu(m.weight, eps)),
    nn.ELU: ("elu", lambda m, eps: exponential(m.alpha, 1.0, eps)),
    nn.SELU: ("selu", lambda m, eps: exponential(SELU_SCALE * SELU_ALPHA, 1.0, eps)),
    nn.CELU: ("celu", lambda m, eps: exponential(m.alpha, 1 / m.alpha, eps)),
    nn.SiLU: ("silu", lambda m, eps: smooth_dip(silu_slope, eps)),
    nn.GELU: ("gelu", lambda m, eps: gelu(m.approximate, eps)),
    nn.Mish: ("mish", lambda m, eps: smooth_dip(mish_slope, eps)),
    nn.Softplus: ("softplus", lambda m, eps: softplus(m.beta, eps)),
    nn.ReLU6: ("relu6", lambda m, eps: Gate(low=0.0, high=6.0)),
    nn.Hardtanh: ("hardtanh", lambda m, eps: Gate(low=m.min_val, high=m.max_val)),
    nn.Hardswish: ("hardswish", lambda m, eps: hardswish(eps)),
    nn.Hardsigmoid: ("hardsigmoid", lambda m, eps: bump(3.0)),
    nn.Hardshrink: ("hardshrink", lambda m, eps: around(0.0, m.lambd)),
    nn.Softshrink: ("softshrink", lambda m, eps: around(0.0, m.lambd)),
    nn.Threshold: ("threshold", lambda m, eps: Gate(low=m.threshold)),
    nn.Sigmoid: ("sigmoid", lambda m, eps: bump(sigmoid_width(eps))),
    nn.LogSigmoid: ("logsigmoid", lambda m, eps: Gate(high=math.log((1 - eps) / eps) if eps > 0 else INF)),
    nn.Tanh: ("tanh", lambda m, eps: bump(tanh_width(eps))),
    nn.Softsign: ("softsign", lambda m, eps: bump(1 / math.sqrt(eps) - 1 if eps > 0 else INF)),
    nn.Tanhshrink: ("tanhshrink", lambda m, eps: around(0.0, math.atanh(math.sqrt(min(eps, 0.99))))),
    CReLU: ("crelu", lambda m, eps: around(0.0, 0.0)),
}


def prelu(slope: Tensor, eps: float) -> Gate:
    """PReLU's learned slopes, shape (1,) or (units,): read at every call, since they move."""
    left = slope.detach()
    return Gate(low=(left.abs() <= eps).to(left.dtype).log())  # log 0 = -inf: open; log 1 = 0: like ReLU


def gelu(approximate: str, eps: float) -> Gate:
    """GELU, exact or in its tanh approximation."""
    return smooth_dip(gelu_tanh_slope if approximate == "tanh" else gelu_slope, eps)


def lookup(module: nn.Module) -> tuple[str, Callable[..., Gate]] | None:
    """Canonical name and gate of an activation module, or None for any other module.

    A subclass with a forward of its own computes something else than its parent, unless it says
    `gate_of = Parent`; what it calls inside is then seen as functions.

    Example:
        >>> name, gate = lookup(nn.ReLU6())
        >>> name, gate(nn.ReLU6(), 1e-6).high
        ('relu6', 6.0)
    """
    known = known_as(type(module))
    return None if known is None else MODULES[known]


def known_as(cls: type[nn.Module]) -> type[nn.Module] | None:
    """The class among `MODULES` whose forward this one has, or says that it has the gate of."""
    for known in cls.__mro__:
        if known in MODULES:
            return known if cls.forward is known.forward or vars(cls).get("gate_of") is known else None
    return None
