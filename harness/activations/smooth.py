"""Smooth functions with a dip left of 0: GELU, SiLU, Mish; and Hardswish, a piecewise SiLU."""

from __future__ import annotations

import math

import numpy as np

from harness.activations.exponential import expit
from harness.activations.gates import Gate, smooth_dip
from harness.activations.record import Activation


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


# fmt: off
ACTIVATIONS = (
    Activation("silu", ("SiLU",), lambda p, eps: smooth_dip(silu_slope, eps),
               lambda z: z * expit(z), np.vectorize(silu_slope), "z σ(z)", options={}, kernel="silu"),
    Activation("gelu", ("GELU",),
               lambda p, eps: smooth_dip(gelu_tanh_slope if p["approximate"] == "tanh" else gelu_slope, eps),
               np.vectorize(lambda z: 0.5 * z * math.erfc(-z / math.sqrt(2))), np.vectorize(gelu_slope),
               "z Φ(z)", parameters={"approximate": "none"}, options={},
               kernel="gelu", constants=lambda p: ()),
    Activation("mish", ("Mish",), lambda p, eps: smooth_dip(mish_slope, eps),
               lambda z: z * np.tanh(np.logaddexp(0, z)), np.vectorize(mish_slope), "z tanh(ln(1 + eᶻ))",
               options={}, kernel="mish"),
    # slope (2z + 3) / 6 on (-3, 3), 0 below, 1 above (Howard et al. 2019, 1905.02244)
    Activation("hardswish", ("Hardswish",),
               lambda p, eps: Gate(low=-3.0, hole_low=-1.5 - 3 * eps, hole_high=-1.5 + 3 * eps),
               lambda z: z * np.clip(z + 3, 0.0, 6.0) / 6,
               lambda z: np.where(z <= -3, 0.0, np.where(z >= 3, 1.0, (2 * z + 3) / 6)),
               "z min(6, max(0, z + 3)) / 6", (-5, 5), options={}, kernel="hardswish"),
)
