"""UnitStatistics: all that is known of a site's units over some inputs, in a few tensors.

The tuple merges by addition (and maximum), so that the same one serves a batch, a window, several ranks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.hooks import kernels
from harness.hooks.activations import Gate


@dataclass(slots=True)
class UnitStatistics:
    """Sums over the inputs of a window; F units.

    Attributes:
        n: inputs observed (batch × positions), the same for every unit.
        grad_n: inputs whose backward ran.
        active: (F,) int64, inputs on which the gate was open.
        non_finite: (F,) int64, inputs on which z was NaN or infinite.
        total: (F,) float64, sum of finite z.
        squares: (F,) float64, sum of squares of finite z.
        peak: (F,) float64, largest finite z, -inf if there was none.
        grad_squares: (F,) float64, sum of squares of ∂L/∂z.
        silent_for: (F,) int64, inputs since the gate was last open; outlives the window.
    """

    n: int
    grad_n: int
    active: Tensor
    non_finite: Tensor
    total: Tensor
    squares: Tensor
    peak: Tensor
    grad_squares: Tensor
    silent_for: Tensor


def empty(units: int, device: torch.device | str = "cpu", silent_for: Tensor | None = None) -> UnitStatistics:
    """Statistics of no inputs for `units` units; `silent_for` is carried over from an earlier window."""

    def zeros(dtype: torch.dtype) -> Tensor:
        return torch.zeros(units, dtype=dtype, device=device)

    return UnitStatistics(
        n=0,
        grad_n=0,
        active=zeros(torch.int64),
        non_finite=zeros(torch.int64),
        total=zeros(torch.float64),
        squares=zeros(torch.float64),
        peak=torch.full((units,), -torch.inf, dtype=torch.float64, device=device),
        grad_squares=zeros(torch.float64),
        silent_for=zeros(torch.int64) if silent_for is None else silent_for,
    )


def update(statistics: UnitStatistics, z: Tensor, gate: Gate, *, again: bool = False) -> None:
    """Count one call in.

    Args:
        statistics: changed in place.
        z: pre-activations of shape (A, F) or (A, F, P), detached.
        gate: where the activation's gate is open.
        again: the site was called before in the same forward of the model, which is the resolution of
            `silent_for`: a unit that opened in one of the calls is not silent.

    Example:
        >>> s = empty(2)
        >>> update(s, torch.tensor([[1.0, -1.0], [2.0, -2.0]]), Gate(low=0.0))
        >>> s.n, s.active.tolist(), s.silent_for.tolist()
        (2, [2, 0], [0, 2])
    """
    n = z.shape[0] * (z.shape[2] if z.ndim == 3 else 1)
    if n == 0:
        return
    batch = kernels.observe(z, gate)
    active = torch.as_tensor(batch.active)
    statistics.n += n
    statistics.active += active
    statistics.non_finite += torch.as_tensor(batch.non_finite)
    statistics.total += torch.as_tensor(batch.total)
    statistics.squares += torch.as_tensor(batch.squares)
    torch.maximum(statistics.peak, torch.as_tensor(batch.peak), out=statistics.peak)
    open_now = (active > 0) | (statistics.silent_for == 0) if again else active > 0
    statistics.silent_for += n
    statistics.silent_for *= ~open_now


def update_gradient(statistics: UnitStatistics, gradient: Tensor) -> None:
    """Count one backward in; `gradient` is ∂L/∂z in the shape (A, F) or (A, F, P)."""
    n = gradient.shape[0] * (gradient.shape[2] if gradient.ndim == 3 else 1)
    if n == 0:
        return
    statistics.grad_n += n
    statistics.grad_squares += torch.as_tensor(kernels.observe_gradient(gradient))


def merge(a: UnitStatistics, b: UnitStatistics) -> UnitStatistics:
    """Statistics of the inputs of `a` followed by those of `b`; neither is changed.

    Raises:
        ValueError: the two speak of different numbers of units.
    """
    if a.active.shape != b.active.shape:
        raise ValueError(f"expected equal numbers of units, but got {len(a.active)} and {len(b.active)}")
    return UnitStatistics(
        n=a.n + b.n,
        grad_n=a.grad_n + b.grad_n,
        active=a.active + b.active,
        non_finite=a.non_finite + b.non_finite,
        total=a.total + b.total,
        squares=a.squares + b.squares,
        peak=torch.maximum(a.peak, b.peak),
        grad_squares=a.grad_squares + b.grad_squares,
        silent_for=torch.where(b.active > 0, b.silent_for, a.silent_for + b.n),
    )


def finalise(statistics: UnitStatistics) -> dict[str, np.ndarray]:
    """The census columns that follow from the sums (DESIGN: census columns), each of shape (F,).

    `std` has ddof 0; mean, std and max are over finite values and NaN where there is none; `grad_rms` is
    NaN where no backward ran.
    """
    s = {
        name: getattr(statistics, name).cpu().numpy()
        for name in ("active", "non_finite", "total", "squares", "peak", "grad_squares", "silent_for")
    }
    finite = statistics.n - s["non_finite"]
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(finite > 0, s["total"] / finite, np.nan)
        variance = np.where(finite > 0, s["squares"] / finite, np.nan) - mean**2
        rms = np.sqrt(s["grad_squares"] / statistics.grad_n) if statistics.grad_n else mean * np.nan
        rate = s["active"] / statistics.n if statistics.n else mean * np.nan
    return {
        "n": np.full(len(mean), statistics.n, np.int64),
        "active": s["active"].copy(),
        "rate": rate,
        "silent_for": s["silent_for"].copy(),
        "mean": mean,
        # what rounding leaves of a constant's variance is nothing
        "std": np.sqrt(np.where(variance > 1e-14 * mean**2, variance, np.where(np.isnan(mean), np.nan, 0.0))),
        "max": np.where(finite > 0, s["peak"], np.nan),
        "non_finite": s["non_finite"].copy(),
        "grad_rms": rms,
    }


def to_state(statistics: UnitStatistics) -> dict[str, Any]:
    """Tensors and plain values only."""
    return {name: _copy(getattr(statistics, name)) for name in UnitStatistics.__slots__}


def from_state(state: Mapping[str, Any], device: torch.device | str = "cpu") -> UnitStatistics:
    """The statistics that `to_state` wrote."""
    moved: dict[str, Any] = {
        name: value.to(device, copy=True) if isinstance(value, Tensor) else value
        for name, value in state.items()
    }
    return UnitStatistics(**moved)


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value
