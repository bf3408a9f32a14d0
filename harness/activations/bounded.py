"""Functions that saturate: sigmoid, tanh and similar ones."""

from __future__ import annotations

import math

import numpy as np

from harness.activations.exponential import expit
from harness.activations.gates import INF, Gate, bump, logistic
from harness.activations.record import Activation


def _tanh_width(eps: float) -> float:
    """The z at which tanh' = 1 - tanh² = eps; σ(z) = (1 + tanh(z / 2)) / 2."""
    return INF if eps <= 0 else math.acosh(max(1.0, 1 / math.sqrt(eps)))


# fmt: off
ACTIVATIONS = (
    Activation("sigmoid", ("Sigmoid",), lambda p, eps: bump(2 * _tanh_width(4 * eps)),
               expit, lambda z: expit(z) * expit(-z), "σ(z) = 1 / (1 + e⁻ᶻ)", (-8, 8),
               spellings=("sigmoid", "expit"), options={}, kernel="sigmoid"),
    Activation("tanh", ("Tanh",), lambda p, eps: bump(_tanh_width(eps)),
               np.tanh, lambda z: 1 - np.tanh(z) ** 2, "tanh(z)", options={}, kernel="tanh"),
    Activation("logsigmoid", ("LogSigmoid",), lambda p, eps: logistic(-1.0, INF, eps),
               lambda z: -np.logaddexp(0, -z), lambda z: expit(-z), "ln σ(z)",
               spellings=("logsigmoid", "log_sigmoid")),
    Activation("softsign", ("Softsign",), lambda p, eps: bump(1 / math.sqrt(eps) - 1 if eps > 0 else INF),
               lambda z: z / (1 + np.abs(z)), lambda z: (1 + np.abs(z)) ** -2.0, "z / (1 + |z|)"),
    Activation("hardtanh", ("Hardtanh",), lambda p, eps: Gate(low=p["min_val"], high=p["max_val"]),
               lambda z: np.clip(z, -1.0, 1.0), lambda z: (np.abs(z) < 1).astype(float),
               "min(1, max(−1, z))", parameters={"min_val": -1.0, "max_val": 1.0}),
    Activation("hardsigmoid", ("Hardsigmoid",), lambda p, eps: bump(3.0 if eps < 1 / 6 else 0.0),
               lambda z: np.clip(z + 3, 0.0, 6.0) / 6, lambda z: (np.abs(z) < 3) / 6,
               "min(6, max(0, z + 3)) / 6", (-5, 5)),
)
