"""Piecewise linear functions with a kink at 0 (or at a threshold): ReLU and its kin."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np

from harness.activations.gates import INF, Gate, around_zero, zero_side
from harness.activations.record import Activation, Curve, Parameters


def step(z: np.ndarray, left: float = 0.0) -> np.ndarray:
    """1 where z > 0, else `left`."""
    return np.where(z > 0, 1.0, left)


def _leaky(slope: float) -> tuple[Curve, Curve]:
    return lambda z: np.where(z > 0, z, slope * z), lambda z: step(z, slope)


def _relu(z: np.ndarray) -> np.ndarray:
    return np.maximum(z, 0.0)


def _rrelu_gate(p: Parameters, eps: float) -> Gate:
    """In training the slope is drawn from lower to upper, in evaluation it is their mean."""
    low, high = float(p["lower"]), float(p["upper"])
    return zero_side(max(abs(low), abs(high)) if p["training"] else (low + high) / 2, eps)


def _prelu_gate(p: Parameters, eps: float) -> Gate:
    """PReLU's learned slopes, shape (1,) or (units,): read at every call, since they move."""
    weight: Any = p["weight"]
    if isinstance(weight, Real):
        return zero_side(float(weight), eps)
    left = weight.detach()
    return Gate(low=(left.abs() <= eps).to(left.dtype).log())  # log 0 = -inf: open; log 1 = 0: like ReLU


def _clamp_gate(p: Parameters, eps: float) -> Gate | None:
    """Only what is cut at 0 is an activation."""
    low, high = p["min"], INF if p["max"] is None else p["max"]
    known = isinstance(low, Real) and isinstance(high, Real) and low == 0
    return Gate(low=0.0, high=float(high)) if known else None


ACTIVATIONS = (
    Activation(
        "relu",
        lambda p, eps: zero_side(0.0, eps),
        *(_relu, step, "max(0, z)"),
        modules=("torch.nn.ReLU",),
        options={},
    ),
    Activation(
        "leaky_relu",
        lambda p, eps: zero_side(float(p["negative_slope"]), eps),
        *(*_leaky(0.01), "z, or 0.01 z for z ≤ 0"),
        modules=("torch.nn.LeakyReLU",),
        parameters={"negative_slope": 0.01},
        options={"slope": ("negative_slope", 0.01)},
        kernel="leaky_relu",
        constants=lambda p: (p["negative_slope"],),
    ),
    Activation(
        "prelu",
        _prelu_gate,
        *(*_leaky(0.25), "z, or a z for z ≤ 0; a is learned, from 0.25"),
        modules=("torch.nn.PReLU",),
        parameters={"weight": 0.25},
        options={"slope": ("init", 0.25)},
        units="num_parameters",
    ),
    Activation(
        "rrelu",
        _rrelu_gate,
        *(*_leaky((1 / 8 + 1 / 3) / 2), "z, or a z for z ≤ 0; a drawn from 1/8 to 1/3"),
        modules=("torch.nn.RReLU",),
        parameters={"lower": 1 / 8, "upper": 1 / 3, "training": False},
    ),
    Activation(
        "relu6",
        lambda p, eps: Gate(low=0.0, high=6.0),
        lambda z: np.clip(z, 0.0, 6.0),
        lambda z: ((z > 0) & (z < 6)).astype(float),
        "min(6, max(0, z))",
        window=(-3, 9),
        modules=("torch.nn.ReLU6",),
        options={},
        kernel="hardtanh",
        constants=lambda p: (0.0, 6.0),
    ),
    Activation(
        "crelu",
        lambda p, eps: around_zero(0.0),
        lambda z: np.stack([_relu(z), _relu(-z)]),
        lambda z: np.stack([step(z), -step(-z)]),
        "max(0, z) and max(0, −z), side by side",
        modules=("harness.activations.crelu.CReLU",),
        options={},
        outputs=2,
    ),
    Activation(
        "threshold",
        lambda p, eps: Gate(low=float(p["threshold"])),
        *(lambda z: np.where(z > 0, z, 0.0), step),
        "z above a threshold t, a constant up to it; here t = 0",
        modules=("torch.nn.Threshold",),
        parameters={"threshold": 0.0, "value": 0.0},
    ),
    Activation(
        "clamp",
        _clamp_gate,
        *(_relu, step, "min(b, max(0, z)); here without b"),
        spellings=("clamp", "clip", "clamp_min"),
        parameters={"min": None, "max": None},
        computed_by="torch.clamp",
    ),
    Activation(
        "maximum",
        lambda p, eps: Gate(low=0.0),
        *(_relu, step, "max(0, z)"),
        spellings=("maximum", "max", "fmax"),
        positional=("other",),
        computed_by="torch.relu",
    ),
)
