"""Counts a batch into a site's accumulators, by the kernel that fits the tensor.

On the CPU, compiled loops count (`numba.py`); on a GPU, Triton kernels (`triton.py`); everywhere else, and
for all other tensors, plain torch operations (`traced.py`). No kernel reads a value from a device.
"""

from __future__ import annotations

from math import prod

import numpy as np
import torch
from torch import Tensor

from harness.activations.gates import Gate
from harness.kernels import numba, traced, triton
from harness.kernels.accumulators import GRADIENT, Accumulators, shifted  # noqa: F401  (of the example)
from harness.kernels.countable import PLAIN, Uncountable, countable
from harness.kernels.layout import Axes, as_units, unit_shape
from harness.kernels.numba_arguments import bounds_of
from harness.kernels.numba_gradients import add_squares
from harness.kernels.numba_intrinsics import LIKE

HALF = (torch.float16, torch.bfloat16)


def accumulate(sums: Accumulators, z: Tensor, axes: Axes, gate: Gate, *, same_forward: bool = False) -> int:
    """Count a batch of pre-activations.

    Args:
        sums: accumulators of the site, changed in place.
        z: pre-activations, detached.
        axes: unit axes, negative: one, or several that are numbered row-major in the order given; () for one
            unit.
        gate: where the activation's gate is open.
        same_forward: whether the site was called before in the same forward of the model.

    Returns:
        n, the inputs (batch × positions) counted.

    Raises:
        Uncountable: no kernel can count the values; the sums are unchanged.
        ValueError: the tensor lacks an axis.

    Example:
        >>> sums = Accumulators(2, "cpu")
        >>> accumulate(sums, torch.tensor([[-1.0, 2.0], [-3.0, 4.0]]), -1, Gate(low=0.0))
        2
        >>> sums.counts[0].tolist(), shifted(sums.sums, torch.tensor(2), 0.0)[0].tolist()
        ([0, 2], [-4.0, 6.0])
    """
    z = _checked(sums, z, axes, gate)
    if z.numel() == 0:
        return 0
    arrays, units = sums.arrays, _in_memory(sums, z, axes)
    if arrays is not None and units is not None:
        rows, positions = units.shape[0], units[0, 0].numel()
        bounds = bounds_of(gate, units.dtype)
        numba.accumulate(units.data_ptr(), rows, positions, same_forward, bounds, *arrays)
        return rows * positions
    if triton.serves(z):
        try:
            return triton.accumulate(sums, z, axes, gate, same_forward=same_forward)
        except triton.NotBuilt as error:
            triton.give_up(error)
    try:
        return traced.accumulate(sums, z, axes, gate, same_forward=same_forward)
    except (RuntimeError, TypeError) as error:
        raise _refused(z, error) from error


def accumulate_gradient(sums: Accumulators, gradient: Tensor, axes: Axes) -> int:
    """Add the squares of ∂L/∂z, detached; returns the number of inputs. Raises like `accumulate`."""
    gradient = _checked(sums, gradient, axes)
    if gradient.numel() == 0:
        return 0
    arrays, units = sums.arrays, _in_memory(sums, gradient, axes)
    if arrays is not None and units is not None:
        rows, positions = units.shape[0], units[0, 0].numel()
        like = LIKE[units.dtype]
        add_squares(units.data_ptr(), rows, positions, like, arrays[1][GRADIENT])
        return rows * positions
    if triton.serves(gradient):
        try:
            return triton.accumulate_gradient(sums, gradient, axes)
        except triton.NotBuilt as error:
            triton.give_up(error)
    try:
        return traced.accumulate_gradient(sums, gradient, axes)
    except (RuntimeError, TypeError) as error:
        raise _refused(gradient, error) from error


def unit_squares(weight: Tensor, bias: Tensor | None) -> Tensor:
    """Sum of squares of each unit's weights, units on axis 0: (F,) float64 on the same device."""
    flat = weight.detach().reshape(len(weight), -1)
    plain = type(flat) is Tensor and flat.is_cpu and flat.dtype in LIKE
    if plain and (bias is None or bias.dtype == flat.dtype):
        squares = np.zeros(len(flat))
        for part in (flat, bias):
            if part is not None and part.numel():
                part = part.detach().contiguous()
                positions = part.numel() // len(part)
                add_squares(part.data_ptr(), 1, positions, LIKE[part.dtype], squares)
        return torch.from_numpy(squares)
    squares = flat.abs().to(torch.float64).square().sum(1)  # complex weights too
    return squares if bias is None else squares + bias.detach().abs().to(torch.float64).square()


def _checked(sums: Accumulators, z: Tensor, axes: Axes, gate: Gate | None = None) -> Tensor:
    """The tensor with its actual values, after checking that the accumulators fit."""
    z = countable(z)
    units, expected = prod(unit_shape(z, axes)), sums.counts.shape[1]
    if not units:
        raise Uncountable("a tensor without units")
    if units != expected:
        raise Uncountable(f"{units} units, but the site has {expected}")
    low = None if gate is None else gate.low
    if isinstance(low, Tensor) and low.numel() not in (1, units):
        raise Uncountable(f"{low.numel()} thresholds for {units} units")
    if z.device != sums.counts.device:
        raise Uncountable(f"a tensor on {z.device}, but the sums of the site are on {sums.counts.device}")
    return z


def _in_memory(sums: Accumulators, z: Tensor, axes: Axes) -> Tensor | None:
    """The tensor as contiguous (A, F) or (A, F, P), copied if necessary; None if the loops cannot read it."""
    if sums.arrays is None or type(z) not in PLAIN or not (z.dtype in LIKE or z.dtype in HALF):
        return None
    units = as_units(z, axes, ordered=False).contiguous()
    return units.float() if units.dtype in HALF else units  # exact


def _refused(z: Tensor, error: Exception) -> Exception:
    """The error to raise: Uncountable for tensor subclasses, whatever they raised."""
    if type(z) in PLAIN:
        return error
    lines = str(error).splitlines() or [type(error).__name__]
    return Uncountable(f"a {type(z).__name__}: {lines[0]}")
