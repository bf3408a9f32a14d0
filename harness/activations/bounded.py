"""Functions that saturate: sigmoid, tanh and their kin."""

from __future__ import annotations

import math

import numpy as np

from harness.activations.exponential import expit
from harness.activations.gates import INF, Gate, bump, logistic
from harness.activations.record import Activation


def _sigmoid_width(eps: float) -> float:
    """Where s(1 - s) = eps."""
    return INF if eps <= 0 else 2 * math.acosh(max(1.0, 1 / (2 * math.sqrt(eps))))


def _tanh_width(eps: float) -> float:
    """Where 1 - tanh² = eps."""
    return INF if eps <= 0 else math.acosh(max(1.0, 1 / math.sqrt(eps)))


def _inside(z: np.ndarray, edge: float) -> np.ndarray:
    return (np.abs(z) < edge).astype(float)


ACTIVATIONS = (
    Activation(
        "sigmoid",
        lambda p, eps: bump(_sigmoid_width(eps)),
        *(expit, lambda z: expit(z) * expit(-z), "σ(z) = 1 / (1 + e⁻ᶻ)", (-8, 8)),
        modules=("torch.nn.Sigmoid",),
        spellings=("sigmoid", "expit"),
        options={},
        kernel="sigmoid",
    ),
    Activation(
        "tanh",
        lambda p, eps: bump(_tanh_width(eps)),
        *(np.tanh, lambda z: 1 - np.tanh(z) ** 2, "tanh(z)"),
        modules=("torch.nn.Tanh",),
        options={},
        kernel="tanh",
    ),
    Activation(
        "logsigmoid",
        lambda p, eps: logistic(-1.0, INF, eps),
        *(lambda z: -np.logaddexp(0, -z), lambda z: expit(-z), "ln σ(z)"),
        modules=("torch.nn.LogSigmoid",),
        spellings=("logsigmoid", "log_sigmoid"),
    ),
    Activation(
        "softsign",
        lambda p, eps: bump(1 / math.sqrt(eps) - 1 if eps > 0 else INF),
        *(lambda z: z / (1 + np.abs(z)), lambda z: (1 + np.abs(z)) ** -2.0, "z / (1 + |z|)"),
        modules=("torch.nn.Softsign",),
    ),
    Activation(
        "hardtanh",
        lambda p, eps: Gate(low=float(p["min_val"]), high=float(p["max_val"])),
        *(lambda z: np.clip(z, -1.0, 1.0), lambda z: _inside(z, 1), "min(1, max(−1, z))"),
        modules=("torch.nn.Hardtanh",),
        parameters={"min_val": -1.0, "max_val": 1.0},
    ),
    Activation(
        "hardsigmoid",
        lambda p, eps: bump(3.0 if eps < 1 / 6 else 0.0),
        *(lambda z: np.clip(z + 3, 0.0, 6.0) / 6, lambda z: _inside(z, 3) / 6),
        *("min(6, max(0, z + 3)) / 6", (-5, 5)),
        modules=("torch.nn.Hardsigmoid",),
    ),
)
