"""Functions that are flat around 0: Hardshrink, Softshrink, Tanhshrink."""

from __future__ import annotations

import math

import numpy as np

from harness.activations.gates import around_zero
from harness.activations.record import Activation


def _outside(z: np.ndarray) -> np.ndarray:
    return (np.abs(z) > 0.5).astype(float)


# fmt: off
ACTIVATIONS = (
    Activation("hardshrink", ("Hardshrink",), lambda p, eps: around_zero(p["lambd"]),
               lambda z: np.where(np.abs(z) > 0.5, z, 0.0), _outside, "z, or 0 for |z| ≤ ½", (-2, 2),
               parameters={"lambd": 0.5}),
    Activation("softshrink", ("Softshrink",), lambda p, eps: around_zero(p["lambd"]),
               lambda z: np.sign(z) * np.maximum(np.abs(z) - 0.5, 0.0), _outside,
               "sign(z) max(0, |z| − ½)", (-2, 2), parameters={"lambd": 0.5}),
    Activation("tanhshrink", ("Tanhshrink",), lambda p, eps: around_zero(math.atanh(math.sqrt(eps))),
               lambda z: z - np.tanh(z), lambda z: np.tanh(z) ** 2, "z − tanh(z)"),
)
