"""Piecewise linear functions with a kink at 0 (or at a threshold): ReLU and its variants."""

from __future__ import annotations

import numpy as np

from harness.activations.gates import INF, Gate, around_zero, zero_side
from harness.activations.record import Activation, Curve, Parameters


def _relu(z: np.ndarray) -> np.ndarray:
    return np.maximum(z, 0.0)


def _step(z: np.ndarray) -> np.ndarray:
    return np.where(z > 0, 1.0, 0.0)


def _leaky(slope: float) -> tuple[Curve, Curve]:
    return lambda z: np.where(z > 0, z, slope * z), lambda z: np.where(z > 0, 1.0, slope)


def _rrelu_gate(p: Parameters, eps: float) -> Gate:
    """Gate of RReLU: in training the slope is drawn from [lower, upper], in evaluation it is their mean."""
    low, high = p["lower"], p["upper"]
    return zero_side(max(abs(low), abs(high)) if p["training"] else (low + high) / 2, eps)


def _prelu_gate(p: Parameters, eps: float) -> Gate:
    """Gate of PReLU's learned slopes, shape (1,) or (units,); read at every call, since they change."""
    if p["weight"] is None:
        return zero_side(0.25, eps)  # the initial slope
    left = p["weight"].detach()
    return Gate(low=(left.abs() <= eps).to(left.dtype).log())  # log 0 = -inf: open; log 1 = 0: like ReLU


def _clamp_gate(p: Parameters, eps: float) -> Gate | None:
    """Gate of clamp, which is an activation only if its minimum is the number 0."""
    low, high = p["min"], INF if p["max"] is None else p["max"]
    numbers = isinstance(low, int | float) and isinstance(high, int | float)
    return Gate(low=0.0, high=float(high)) if numbers and low == 0 else None


# fmt: off
ACTIVATIONS = (
    Activation("relu", ("ReLU",), lambda p, eps: zero_side(0.0, eps), _relu, _step, "max(0, z)", options={}),
    Activation("leaky_relu", ("LeakyReLU",), lambda p, eps: zero_side(p["negative_slope"], eps),
               *_leaky(0.01), "z, or 0.01 z for z ≤ 0", kernel="leaky_relu",
               parameters={"negative_slope": 0.01}, options={"slope": ("negative_slope", 0.01)}),
    Activation("prelu", ("PReLU",), _prelu_gate,
               *_leaky(0.25), "z, or a z for z ≤ 0; a is learned, from 0.25",
               parameters={"weight": None}, options={"slope": ("init", 0.25)}, units="num_parameters"),
    Activation("rrelu", ("RReLU",), _rrelu_gate,
               *_leaky((1 / 8 + 1 / 3) / 2), "z, or a z for z ≤ 0; a drawn from 1/8 to 1/3",
               parameters={"lower": 1 / 8, "upper": 1 / 3, "training": False}),
    Activation("relu6", ("ReLU6",), lambda p, eps: Gate(low=0.0, high=6.0), lambda z: np.clip(z, 0.0, 6.0),
               lambda z: _step(z) * _step(6 - z), "min(6, max(0, z))", (-3, 9),
               options={}, kernel="hardtanh", constants=lambda p: (0.0, 6.0)),
    Activation("crelu", ("harness.activations.crelu.CReLU",), lambda p, eps: around_zero(0.0),
               lambda z: np.stack([_relu(z), _relu(-z)]), lambda z: np.stack([_step(z), -_step(-z)]),
               "max(0, z) and max(0, −z), side by side", options={}, outputs=2),
    Activation("threshold", ("Threshold",), lambda p, eps: Gate(low=p["threshold"]), _relu, _step,
               "z above a threshold t, a constant up to it; here t = 0",
               parameters={"threshold": 0.0, "value": 0.0}),
    Activation("clamp", (), _clamp_gate, _relu, _step, "min(b, max(0, z)); here without b",
               spellings=("clamp", "clip", "clamp_min"), parameters={"min": None, "max": None},
               computed_by="torch.clamp"),
    Activation("maximum", (), lambda p, eps: Gate(low=0.0), _relu, _step, "max(0, z)",
               spellings=("maximum", "max", "fmax"), positional=("other",), computed_by="torch.relu"),
)
