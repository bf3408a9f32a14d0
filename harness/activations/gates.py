"""Gates: for which pre-activations a gradient passes, and how to solve for them.

The gate of a unit at z is f'(z); it is open where |f'(z)| > eps, with 0 <= eps < 1. For every function here,
the open set is an interval with at most one hole, so a `Gate` is described by four numbers. Gates are solved
once, when a site is first seen; the kernels only compare.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

INF = math.inf


class Gate(NamedTuple):
    """Open iff low < z < high and not hole_low <= z <= hole_high; never for NaN.

    `low` is a number, or a torch.Tensor of shape (units,) if units differ (PReLU).
    """

    low: float | Any = -INF
    high: float = INF
    hole_low: float = INF
    hole_high: float = -INF

    @property
    def has_hole(self) -> bool:
        return self.hole_low <= self.hole_high


def zero_side(left_slope: float, eps: float) -> Gate:
    """Slope 1 for z > 0, `left_slope` elsewhere: ReLU and its leaky variants; z = 0 belongs to the left."""
    return Gate() if abs(left_slope) > eps else Gate(low=0.0)


def exponential(peak: float, rate: float, eps: float) -> Gate:
    """Slope `peak e^(rate z)` for z <= 0, constant beyond: ELU, SELU, CELU."""
    if not peak * rate:
        return zero_side(peak, eps)
    crossing = (math.log(eps / abs(peak)) if eps > 0 else -INF) / rate
    if rate > 0:
        return Gate(low=min(crossing, 0.0))
    return Gate(hole_low=crossing, hole_high=0.0)  # the slope grows to the left


def bump(width: float) -> Gate:
    """Open within `width` on both sides of 0: sigmoid, tanh, softsign."""
    return Gate(low=-width, high=width)


def around_zero(half_width: float) -> Gate:
    """Closed within `half_width` of 0, open elsewhere."""
    return Gate(hole_low=0.0 - half_width, hole_high=half_width)


def logistic(beta: float, threshold: float, eps: float) -> Gate:
    """Slope σ(βz), and 1 where βz is above the threshold: softplus."""
    crossing = min(math.log(eps / (1 - eps)) if eps > 0 else -INF, threshold)
    if beta == 0:  # σ(0) everywhere
        return Gate() if crossing < 0 else Gate(low=INF)
    return Gate(low=crossing / beta) if beta > 0 else Gate(high=crossing / beta)


@lru_cache(maxsize=64)
def smooth_dip(slope: Callable[[float], float], eps: float) -> Gate:
    """Slope that falls from 1 through one root to a negative minimum and back up to 0: GELU, SiLU, Mish."""

    def crossing(inside: float, outside: float, level: Callable[[float], bool]) -> float:
        for _ in range(200):
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if level(middle) else (inside, middle)
        return inside

    root = crossing(0.0, -2.0, lambda z: slope(z) > 0)
    dip = min((root - k / 100 for k in range(1, 400)), key=slope)
    if eps <= 0:
        return Gate(hole_low=root, hole_high=root)
    hole_high = crossing(root, 2.0, lambda z: abs(slope(z)) <= eps)
    if abs(slope(dip)) <= eps:
        return Gate(low=hole_high)
    return Gate(
        low=crossing(dip, -800.0, lambda z: abs(slope(z)) > eps),
        hole_low=crossing(root, dip, lambda z: abs(slope(z)) <= eps),
        hole_high=hole_high,
    )
