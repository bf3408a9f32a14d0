"""The activation functions in the textbook's diagrams, and where their gates are closed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from harness.activations.record import Activation
from harness.activations.registry import RECORDS

#: Functions that are modules; clamp and maximum are other spellings of ReLU.
FUNCTIONS = {name: record for name, record in RECORDS.items() if record.modules}


class Interval(NamedTuple):
    """An interval in which the gate is closed, including both ends; a single point if they are equal."""

    low: float
    high: float


def function(name: str) -> Activation:
    """The function with a canonical name, with torch's default parameters.

    Raises:
        ValueError: unknown name.

    Example:
        >>> function("relu").slope(np.array([-1.0, 0.0, 2.0])).tolist()
        [0.0, 0.0, 1.0]
    """
    if name not in FUNCTIONS:
        raise ValueError(f"activation: expected one of {', '.join(sorted(FUNCTIONS))}, but got {name!r}")
    return FUNCTIONS[name]


def closed(name: str, eps: float = 1e-6) -> list[Interval]:
    """Where |f'| ≤ eps: intervals of pre-activations without a gradient, from left to right.

    Args:
        name: canonical name of the function.
        eps: like the Recorder's `gate_eps`.

    Example:
        >>> closed("relu"), [round(i.low, 2) for i in closed("silu")][1:]
        ([Interval(low=-inf, high=0.0)], [-1.28])
    """
    gate = function(name).gate({}, eps)
    assert gate is not None
    ends = [(-np.inf, float(gate.low)), (gate.hole_low, gate.hole_high), (gate.high, np.inf)]
    found: list[Interval] = []
    for low, high in sorted(ends):
        if low > high or (low == high and np.isinf(low)):
            continue  # empty
        if found and low <= found[-1].high:
            low, high = found[-1].low, max(high, found.pop().high)
        found.append(Interval(low, high))
    return found
