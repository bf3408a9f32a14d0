"""Functions with an exponential left side: ELU and its variants, softplus."""

from __future__ import annotations

import numpy as np

from harness.activations.gates import exponential, logistic
from harness.activations.record import Activation, Curve

SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772


def expit(z: np.ndarray) -> np.ndarray:
    """σ(z)."""
    return np.exp(-np.logaddexp(0, -z))


def _elu(alpha: float, scale: float = 1.0) -> tuple[Curve, Curve]:
    return (
        lambda z: scale * np.where(z > 0, z, alpha * np.expm1(np.minimum(z, 0))),
        lambda z: scale * np.where(z > 0, 1.0, alpha * np.exp(np.minimum(z, 0))),
    )


# fmt: off
ACTIVATIONS = (
    Activation("elu", ("ELU",),
               lambda p, eps: exponential(p["alpha"] * p["scale"] * p["input_scale"], p["input_scale"], eps),
               *_elu(1.0), "z, or eᶻ − 1 for z ≤ 0", options={"alpha": ("alpha", 1.0)}, kernel="elu",
               parameters={"alpha": 1.0, "scale": 1.0, "input_scale": 1.0}, positional=("alpha",),
               computed_by="torch.ops.aten.elu"),
    Activation("selu", ("SELU",), lambda p, eps: exponential(SELU_SCALE * SELU_ALPHA, 1.0, eps),
               *_elu(SELU_ALPHA, SELU_SCALE), "1.05 z, or 1.76 (eᶻ − 1) for z ≤ 0", options={},
               kernel="elu", constants=lambda p: (SELU_ALPHA, SELU_SCALE, 1.0)),
    Activation("celu", ("CELU",), lambda p, eps: exponential(1.0, 1 / p["alpha"], eps),
               *_elu(1.0), "z, or a (e^(z/a) − 1) for z ≤ 0; a = 1",
               parameters={"alpha": 1.0}, options={"alpha": ("alpha", 1.0)},
               kernel="elu", constants=lambda p: (p["alpha"], 1.0, 1 / p["alpha"])),
    Activation("softplus", ("Softplus",), lambda p, eps: logistic(p["beta"], p["threshold"], eps),
               lambda z: np.logaddexp(0, z), expit, "ln(1 + eᶻ)", kernel="softplus",
               parameters={"beta": 1.0, "threshold": 20.0}, options={"beta": ("beta", 1.0)}),
)
