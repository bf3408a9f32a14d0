"""Counting by plain torch operations: on any device, for any tensor, and inside a compiled graph.

The operations update the accumulators in place, never read a value from the device, and trace under
`torch.compile` without a graph break; a compiler may fuse them with neighbouring operations.
"""

from __future__ import annotations

import torch
from torch import Tensor

from harness.activations.gates import Gate
from harness.kernels.accumulators import (
    ACTIVE,
    GRADIENT,
    INPUTS_SINCE_ACTIVE,
    MAX,
    NON_FINITE,
    SHIFT,
    SQUARES,
    SUM,
    Accumulators,
)
from harness.kernels.layout import Axes, as_units

HUGE = 1e38  # replaces an infinite z when its gate is evaluated
EXACT = (torch.float32, torch.float64)  # counted without conversion


def accumulate(sums: Accumulators, z: Tensor, axes: Axes, gate: Gate, *, same_forward: bool = False) -> int:
    """Count a batch of pre-activations, like `dispatch.accumulate`.

    Example:
        >>> sums = Accumulators(2, "cpu")
        >>> accumulate(sums, torch.tensor([[-1.0, 2.0], [-3.0, 4.0]]), -1, Gate(low=0.0))
        2
        >>> sums.counts[ACTIVE].tolist()
        [0, 2]
    """
    units = as_units(z, axes)
    n = units.numel() // units.shape[1]
    if not n:
        return 0
    counts, into = sums.counts, sums.sums
    values = units if units.dtype in EXACT else units.float()
    finite = values.isfinite()
    low = _along(gate.low.to(values), units) if isinstance(gate.low, Tensor) else gate.low
    gated = values > low
    if gate.high < torch.inf or gate.has_hole:
        held = values.clamp(-HUGE, HUGE)
        gated = (held > low) & (held < gate.high)
        if gate.has_hole:
            gated = gated & ((held < gate.hole_low) | (held > gate.hole_high))
    opened = _number(gated)
    counts[ACTIVE] += opened
    counts[NON_FINITE] += _number(~finite)
    active = (opened > 0) | (counts[INPUTS_SINCE_ACTIVE] == 0) if same_forward else opened > 0
    counts[INPUTS_SINCE_ACTIVE] = (counts[INPUTS_SINCE_ACTIVE] + n) * ~active
    shift = torch.where(into[MAX] > -torch.inf, into[SHIFT], _typical(values).to(into.dtype))
    beside = (values - _along(shift.to(values.dtype), units)).where(finite, 0.0)
    into[SHIFT] = shift
    dims, wide = _inputs(units), beside.to(torch.float64)
    into[SUM] += wide.sum(dims)
    into[SQUARES] += wide.square().sum(dims)
    largest = values.where(finite, -torch.inf)
    largest = (largest if units.ndim == 2 else largest.amax(2)).amax(0)
    into[MAX] = torch.maximum(into[MAX], largest.to(into.dtype))
    return n


def accumulate_gradient(sums: Accumulators, gradient: Tensor, axes: Axes) -> int:
    """Add the squares of ∂L/∂z, like `dispatch.accumulate_gradient`."""
    sums.sums[GRADIENT] += squares(gradient, axes)
    return gradient.numel() // sums.counts.shape[1]


def squares(gradient: Tensor, axes: Axes) -> Tensor:
    """The sum of squares of each unit, (F,) float64."""
    units = as_units(gradient, axes)
    return units.to(torch.float64).square().sum(_inputs(units))


def _along(values: Tensor, units: Tensor) -> Tensor:
    """One value per unit, or one for all, reshaped to broadcast against `units`."""
    return values.reshape(-1, *(1,) * (units.ndim - 2))


def _typical(values: Tensor) -> Tensor:
    """The median of three values of each unit (F,), which is robust against one outlier."""
    rows, last = (0, len(values) // 2, len(values) - 1), values.shape[-1] - 1
    places = (0, values.shape[-1] // 2, last)
    a, b, c = (
        values[row] if values.ndim == 2 else values[row, :, place]
        for row, place in zip(rows, places, strict=True)
    )
    median = torch.fmax(torch.fmin(a, b), torch.fmin(torch.fmax(a, b), c))  # ignores NaN
    return torch.where(median.isfinite(), median, 0.0)


def _number(true: Tensor) -> Tensor:
    """How many are true, (F,) int64; summed in float32 along positions, where compiled loops vectorise."""
    return (true if true.ndim == 2 else true.to(torch.float32).sum(2)).to(torch.int64).sum(0)


def _inputs(units: Tensor) -> tuple[int, ...]:
    return (0,) if units.ndim == 2 else (0, 2)
