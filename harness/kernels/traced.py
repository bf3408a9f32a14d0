"""Counting by plain torch operations: on any device, for any tensor, and within a compiled graph.

They update the accumulators in place, never ask the device for a value, and trace under `torch.compile`
without a graph break; a compiler may fuse them with what is computed beside them.
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

HUGE = 1e38  # stands for an infinite z when its gate is asked for


def accumulate(sums: Accumulators, z: Tensor, axes: Axes, gate: Gate, *, same_forward: bool = False) -> int:
    """Count a batch of pre-activations in: as `dispatch.accumulate`.

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
    dims = _inputs(units)
    wide = units.to(torch.float64)
    finite = wide.isfinite()
    low = _along(gate.low.to(wide), units) if isinstance(gate.low, Tensor) else gate.low
    held = wide.clamp(-HUGE, HUGE)
    gated = held > low
    if gate.high < torch.inf:
        gated = gated & (held < gate.high)
    if gate.has_hole:
        gated = gated & ((held < gate.hole_low) | (held > gate.hole_high))
    opened = gated.sum(dims)
    counts[ACTIVE] += opened
    counts[NON_FINITE] += (~finite).sum(dims)
    active = (opened > 0) | (counts[INPUTS_SINCE_ACTIVE] == 0) if same_forward else opened > 0
    counts[INPUTS_SINCE_ACTIVE] = (counts[INPUTS_SINCE_ACTIVE] + n) * ~active
    largest = wide.where(finite, -torch.inf).amax(dims)
    first = torch.where(largest > -torch.inf, largest, 0.0)  # any value of the unit
    shift = torch.where(into[MAX] > -torch.inf, into[SHIFT], first)
    beside = (wide - _along(shift, units)).where(finite, 0.0)
    into[SHIFT] = shift
    into[SUM] += beside.sum(dims)
    into[SQUARES] += beside.square().sum(dims)
    into[MAX] = torch.maximum(into[MAX], largest)
    return n


def accumulate_gradient(sums: Accumulators, gradient: Tensor, axes: Axes) -> int:
    """Add the squares of ∂L/∂z: as `dispatch.accumulate_gradient`."""
    add_squares(sums.sums[GRADIENT], gradient, axes)
    return gradient.numel() // sums.counts.shape[1]


def add_squares(into: Tensor, gradient: Tensor, axes: Axes) -> None:
    """Add the squares of ∂L/∂z to `into` (F,): a tensor alone, as an `autograd.Function` takes it."""
    units = as_units(gradient, axes)
    into.add_(units.to(torch.float64).square().sum(_inputs(units)))


def _along(values: Tensor, units: Tensor) -> Tensor:
    """One value for each unit, or one for all, so that it meets the units of a batch."""
    return values.reshape(-1, *(1,) * (units.ndim - 2))


def _inputs(units: Tensor) -> tuple[int, ...]:
    return (0,) if units.ndim == 2 else (0, 2)
