"""The activation functions and their slopes in numpy, for the textbook's diagrams.

The definitions are those of `harness.activations.table` (the tests hold both against autograd), written
again since the views know no torch. At a kink the slope is the one autograd takes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import expit, ndtr

Curve = Callable[[np.ndarray], np.ndarray]  # z → values, same shape; CReLU: (2, …)

SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772


class Function(NamedTuple):
    """An activation function with the parameters that torch gives it by default.

    Attributes:
        value: f.
        slope: f', by which the gate is open or closed.
        formula: in words of mathematics.
        window: z from … to … of its diagram.
    """

    value: Curve
    slope: Curve
    formula: str
    window: tuple[float, float] = (-4.0, 4.0)


class Interval(NamedTuple):
    """Where the gate is closed, from `low` to `high`, both included; a single point if they are equal."""

    low: float
    high: float


def function(name: str) -> Function:
    """The function of that canonical name.

    Raises:
        ValueError: there is none.

    Example:
        >>> function("relu").slope(np.array([-1.0, 0.0, 2.0])).tolist()
        [0.0, 0.0, 1.0]
    """
    if name not in FUNCTIONS:
        raise ValueError(f"activation: expected one of {', '.join(sorted(FUNCTIONS))}, but got {name!r}")
    return FUNCTIONS[name]


def closed(name: str, eps: float = 1e-6, reach: float = 60.0) -> list[Interval]:
    """Where |f'| ≤ eps: pre-activations on which the unit gets no gradient.

    Args:
        name: canonical name of the function.
        eps: as the Recorder's `gate_eps`.
        reach: intervals that are closed up to ±reach go on to ±infinity.

    Example:
        >>> closed("relu"), [round(i.low, 2) for i in closed("silu")][1:]
        ([Interval(low=-inf, high=0.0)], [-1.28])
    """
    slope = function(name).slope

    def size(z: np.ndarray) -> np.ndarray:
        return np.abs(np.atleast_2d(slope(z))).max(axis=0)  # CReLU is open if either half is

    z = np.linspace(-reach, reach, 24_001)  # its points include 0 and every kink of the table
    signed = np.atleast_2d(slope(z))
    shut = size(z) <= eps
    found = [_edges(size, z, run, eps, reach) for run in _stretches(shut)]
    if len(signed) == 1:  # a slope that changes sign between two points is 0 in between
        for k in np.flatnonzero(signed[0, :-1] * signed[0, 1:] < 0):
            root = _bisect(lambda at, s=signed[0, k]: float(slope(np.array([at]))[0]) * s > 0, z[k], z[k + 1])
            found.append(Interval(root, root))
    return sorted(found)


def _stretches(shut: np.ndarray) -> list[tuple[int, int]]:
    """First and last index of every run of True."""
    padded = np.concatenate([[False], shut, [False]]).astype(int)
    change = np.diff(padded)
    starts, ends = np.flatnonzero(change == 1).tolist(), np.flatnonzero(change == -1).tolist()
    return [(start, end - 1) for start, end in zip(starts, ends, strict=True)]


def _edges(size: Curve, z: np.ndarray, run: tuple[int, int], eps: float, reach: float) -> Interval:
    first, last = run
    low, high = float(z[first]), float(z[last])

    def shut(at: float) -> bool:
        return float(size(np.array([at]))[0]) <= eps

    low = -np.inf if low <= -reach else _bisect(shut, low, float(z[first - 1]))
    high = np.inf if high >= reach else _bisect(shut, high, float(z[last + 1]))
    return Interval(low, high)


def _bisect(holds: Callable[[float], bool], inside: float, outside: float) -> float:
    """The last point, from `inside` on, at which it holds."""
    for _ in range(60):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if holds(middle) else (inside, middle)
    return round(float(inside), 12) + 0.0


def _step(z: np.ndarray, left: float = 0.0) -> np.ndarray:
    return np.where(z > 0, 1.0, left)


def _inside(z: np.ndarray, low: float, high: float) -> np.ndarray:
    return ((z > low) & (z < high)).astype(float)


def _leaky(slope: float) -> tuple[Curve, Curve]:
    return lambda z: np.where(z > 0, z, slope * z), lambda z: _step(z, slope)


def _exponential(alpha: float, scale: float = 1.0) -> tuple[Curve, Curve]:
    return (
        lambda z: scale * np.where(z > 0, z, alpha * np.expm1(np.minimum(z, 0))),
        lambda z: scale * np.where(z > 0, 1.0, alpha * np.exp(np.minimum(z, 0))),
    )


def _gelu_slope(z: np.ndarray) -> np.ndarray:
    return ndtr(z) + z * np.exp(-z * z / 2) / np.sqrt(2 * np.pi)


def _silu_slope(z: np.ndarray) -> np.ndarray:
    s = expit(z)
    return s * (1 + z * (1 - s))


def _mish_slope(z: np.ndarray) -> np.ndarray:
    t = np.tanh(np.logaddexp(0, z))
    return t + z * (1 - t * t) * expit(z)


def _hardswish_slope(z: np.ndarray) -> np.ndarray:
    return np.where(z <= -3, 0.0, np.where(z >= 3, 1.0, (2 * z + 3) / 6))


FUNCTIONS: dict[str, Function] = {
    "relu": Function(lambda z: np.maximum(z, 0.0), _step, "max(0, z)"),
    "leaky_relu": Function(*_leaky(0.01), "z, or 0.01 z for z ≤ 0"),
    "prelu": Function(*_leaky(0.25), "z, or a z for z ≤ 0; a is learned, from 0.25"),
    "rrelu": Function(*_leaky((1 / 8 + 1 / 3) / 2), "z, or a z for z ≤ 0; a drawn from 1/8 to 1/3"),
    "elu": Function(*_exponential(1.0), "z, or eᶻ − 1 for z ≤ 0"),
    "selu": Function(*_exponential(SELU_ALPHA, SELU_SCALE), "1.05 z, or 1.76 (eᶻ − 1) for z ≤ 0"),
    "celu": Function(*_exponential(1.0), "z, or a (e^(z/a) − 1) for z ≤ 0; a = 1"),
    "silu": Function(lambda z: z * expit(z), _silu_slope, "z σ(z)"),
    "gelu": Function(lambda z: z * ndtr(z), _gelu_slope, "z Φ(z)"),
    "mish": Function(lambda z: z * np.tanh(np.logaddexp(0, z)), _mish_slope, "z tanh(ln(1 + eᶻ))"),
    "softplus": Function(lambda z: np.logaddexp(0, z), expit, "ln(1 + eᶻ)"),
    "relu6": Function(
        lambda z: np.clip(z, 0.0, 6.0), lambda z: _inside(z, 0, 6), "min(6, max(0, z))", (-3, 9)
    ),
    "hardtanh": Function(lambda z: np.clip(z, -1.0, 1.0), lambda z: _inside(z, -1, 1), "min(1, max(−1, z))"),
    "hardswish": Function(
        lambda z: z * np.clip(z + 3, 0.0, 6.0) / 6, _hardswish_slope, "z min(6, max(0, z + 3)) / 6", (-5, 5)
    ),
    "hardsigmoid": Function(
        lambda z: np.clip(z + 3, 0.0, 6.0) / 6,
        lambda z: _inside(z, -3, 3) / 6,
        "min(6, max(0, z + 3)) / 6",
        (-5, 5),
    ),
    "hardshrink": Function(
        lambda z: np.where(np.abs(z) > 0.5, z, 0.0),
        lambda z: (np.abs(z) > 0.5).astype(float),
        "z, or 0 for |z| ≤ ½",
        (-2, 2),
    ),
    "softshrink": Function(
        lambda z: np.sign(z) * np.maximum(np.abs(z) - 0.5, 0.0),
        lambda z: (np.abs(z) > 0.5).astype(float),
        "sign(z) max(0, |z| − ½)",
        (-2, 2),
    ),
    "threshold": Function(
        lambda z: np.where(z > 0, z, 0.0), _step, "z above a threshold t, a constant up to it; here t = 0"
    ),
    "sigmoid": Function(expit, lambda z: expit(z) * expit(-z), "σ(z) = 1 / (1 + e⁻ᶻ)", (-8, 8)),
    "logsigmoid": Function(lambda z: -np.logaddexp(0, -z), lambda z: expit(-z), "ln σ(z)"),
    "tanh": Function(np.tanh, lambda z: 1 - np.tanh(z) ** 2, "tanh(z)"),
    "softsign": Function(lambda z: z / (1 + np.abs(z)), lambda z: (1 + np.abs(z)) ** -2.0, "z / (1 + |z|)"),
    "tanhshrink": Function(lambda z: z - np.tanh(z), lambda z: np.tanh(z) ** 2, "z − tanh(z)"),
    "crelu": Function(
        lambda z: np.stack([np.maximum(z, 0.0), np.maximum(-z, 0.0)]),
        lambda z: np.stack([_step(z), -_step(-z)]),
        "max(0, z) and max(0, −z), side by side",
    ),
}
