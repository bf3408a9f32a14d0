"""UnitStatistics: everything known about a site's units over some inputs, in a few tensors.

Statistics merge by addition (and maximum), so the same class serves a batch, a window and several ranks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.activations.gates import Gate
from harness.kernels import dispatch as kernels
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
    shifted,
)
from harness.kernels.layout import Axes, as_units


@dataclass(slots=True)
class UnitStatistics:
    """Sums over the inputs of a window; F units.

    Attributes:
        n: number of observed inputs (batch × positions), the same for every unit.
        grad_n: number of inputs whose backward ran.
        running: the sums themselves; `counts` and `sums` are its tensors.
        extensions: user-defined statistics for the same units.
        observed: whether an earlier window had an input.
        counted: (2,) int64, pending additions to n and grad_n by code that runs without Python: see `settle`.
        compiled_n: number of inputs counted in that way.
        returned: (F + 1,) float64, a leaf whose `.grad` receives the results of compiled backward passes:
            squares of ∂L/∂z, and the number of inputs whose backward ran. Autograd accumulates them, so a
            graph that runs several times before its backward does not write to tensors it has saved; see
            `settle`.
    """

    n: int
    grad_n: int
    running: Accumulators
    extensions: tuple[Any, ...] = ()
    observed: bool = False
    counted: Tensor = field(default_factory=lambda: torch.zeros(2, dtype=torch.int64))
    compiled_n: int = 0
    returned: Tensor | None = None

    @property
    def counts(self) -> Tensor:
        return self.running.counts

    @property
    def sums(self) -> Tensor:
        return self.running.sums

    @property
    def size(self) -> int:
        return self.counts.shape[1]

    def around(self, shift: Tensor | float) -> Tensor:
        """The sums (5, F) around a common shift, (F,) or one number; such sums of several parts add up."""
        return shifted(self.sums, self.n - self.counts[NON_FINITE], shift)

    def clear(self) -> None:
        """Start a new window; the inputs since a gate was last open keep counting."""
        self.observed |= self.n > 0
        self.n = self.grad_n = 0
        self.running.clear()
        for extension in self.extensions:
            extension.zero(self.size, self.counts.device)


def leaf_of(statistics: UnitStatistics) -> Tensor:
    """The leaf `returned`, created if necessary, with a separately allocated gradient."""
    if statistics.returned is None:
        with torch.inference_mode(False), torch.no_grad():
            size, device = statistics.size + 1, statistics.counts.device
            leaf = torch.zeros(size, dtype=torch.float64, device=device, requires_grad=True)
            leaf.grad = torch.zeros_like(leaf)
        statistics.returned = leaf
    return statistics.returned


def settle(statistics: Iterable[UnitStatistics]) -> None:
    """Add what compiled code and CUDA graphs have counted to n and grad_n; reads each device once.

    Example:
        >>> s = empty(2)
        >>> _ = s.counted.copy_(torch.tensor([8, 4]))
        >>> settle([s])
        >>> s.n, s.grad_n, s.counted.tolist()
        (8, 4, [0, 0])
    """
    waiting = list(statistics)
    for device in {one.counted.device for one in waiting}:
        here = [one for one in waiting if one.counted.device == device]
        for one, (n, grad_n) in zip(here, torch.stack([s.counted for s in here]).tolist(), strict=True):
            if n or grad_n:
                one.n += n
                one.grad_n += grad_n
                one.compiled_n += n
                one.counted.zero_()
    _settle_gradients([one for one in waiting if one.returned is not None])


def _settle_gradients(statistics: Sequence[UnitStatistics]) -> None:
    """Add the results of compiled backward passes."""
    found = [one.returned.grad.detach() for one in statistics]  # pyright: ignore
    for device in {one.device for one in found}:
        here = [(s, g) for s, g in zip(statistics, found, strict=True) if g.device == device]
        inputs = torch.stack([gradient[-1] for _, gradient in here]).tolist()
        for (one, gradient), n in zip(here, inputs, strict=True):
            if n:
                one.grad_n += int(n)
                one.sums[GRADIENT] += gradient[:-1]
                gradient.zero_()


def empty(units: int, device: torch.device | str = "cpu") -> UnitStatistics:
    """Statistics of `units` units without inputs."""
    counted = torch.zeros(2, dtype=torch.int64, device=device)
    return UnitStatistics(0, 0, Accumulators(units, device), counted=counted)


def update(
    statistics: UnitStatistics,
    z: Tensor,
    gate: Gate,
    axes: Axes = -1,
    *,
    same_forward: bool = False,
    captured: bool = False,
) -> None:
    """Count one call.

    Args:
        statistics: changed in place.
        z: pre-activations, detached, with the units on `axes`.
        gate: where the activation's gate is open.
        axes: unit axes, negative.
        same_forward: whether the site was called before in the same forward of the model. `silent_for` has
            the resolution of one forward: a unit that opened in one of the calls is not silent.
        captured: whether the call is replayed without Python, so that the device must count n.

    Example:
        >>> s = empty(2)
        >>> update(s, torch.tensor([[1.0, -1.0], [2.0, -2.0]]), Gate(low=0.0))
        >>> s.n, s.counts[ACTIVE].tolist(), s.counts[INPUTS_SINCE_ACTIVE].tolist()
        (2, [2, 0], [0, 2])
    """
    n = kernels.accumulate(statistics.running, z, axes, gate, same_forward=same_forward)
    if captured:
        statistics.counted[0] += n
    else:
        statistics.n += n


def update_open(
    statistics: UnitStatistics, z: Tensor, is_open: Tensor, axes: Axes = -1, *, same_forward: bool = False
) -> None:
    """Count one call whose gates are given one by one.

    Args:
        statistics: as for `update`.
        z: as for `update`.
        is_open: torch.bool, same shape as z; gates where z is NaN count as closed.
        axes: as for `update`.
        same_forward: as for `update`.

    Example:
        >>> s, z = empty(2), torch.tensor([[1.0, 2.0], [4.0, 3.0]])
        >>> update_open(s, z, torch.tensor([[False, True], [True, False]]))
        >>> s.n, s.counts[ACTIVE].tolist(), s.counts[INPUTS_SINCE_ACTIVE].tolist()
        (2, [1, 1], [0, 0])
    """
    update(statistics, z, Gate(low=torch.inf), axes, same_forward=same_forward)
    units = as_units(is_open & ~z.isnan(), axes)
    opened = units.sum((0,) if units.ndim == 2 else (0, 2))
    statistics.counts[ACTIVE] += opened
    statistics.counts[INPUTS_SINCE_ACTIVE] *= opened == 0


def update_gradient(
    statistics: UnitStatistics, gradient: Tensor, axes: Axes = -1, *, captured: bool = False
) -> None:
    """Count one backward; `gradient` is ∂L/∂z with the units on `axes`; `captured` as for `update`."""
    n = kernels.accumulate_gradient(statistics.running, gradient, axes)
    if captured:
        statistics.counted[1] += n
    else:
        statistics.grad_n += n


def merge(a: UnitStatistics, b: UnitStatistics) -> UnitStatistics:
    """Statistics of the inputs of `a` followed by those of `b`; neither is changed.

    Raises:
        ValueError: the numbers of units differ.
    """
    if a.size != b.size:
        raise ValueError(f"expected equal numbers of units, but got {a.size} and {b.size}")
    merged = empty(a.size, a.counts.device)
    merged.n, merged.grad_n = a.n + b.n, a.grad_n + b.grad_n
    merged.counts.copy_(a.counts + b.counts)
    shift = torch.where(a.sums[MAX] > -torch.inf, a.sums[SHIFT], b.sums[SHIFT])
    merged.sums.copy_(a.around(shift) + b.around(shift))
    merged.sums[MAX], merged.sums[SHIFT] = torch.maximum(a.sums[MAX], b.sums[MAX]), shift
    merged.counts[INPUTS_SINCE_ACTIVE] = torch.where(
        b.counts[ACTIVE] > 0, b.counts[INPUTS_SINCE_ACTIVE], a.counts[INPUTS_SINCE_ACTIVE] + b.n
    )
    return merged


def finalise(statistics: UnitStatistics) -> dict[str, np.ndarray]:
    """Census columns computed from the sums (as returned by `Recorder.census`), each of shape (F,).

    `std` has ddof 0; mean, std and max are taken over finite values, NaN if there are none; `grad_rms` is NaN
    if no backward ran.
    """
    counts, sums = statistics.counts.cpu().numpy(), statistics.sums.cpu().numpy()
    s = {
        "active": counts[ACTIVE],
        "non_finite": counts[NON_FINITE],
        "silent_for": counts[INPUTS_SINCE_ACTIVE],
    }
    finite = statistics.n - s["non_finite"]
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        beside = np.where(finite > 0, sums[SUM] / finite, np.nan)  # the mean, relative to the shift
        mean = sums[SHIFT] + beside
        variance = np.where(finite > 0, sums[SQUARES] / finite, np.nan) - beside**2
        rms = np.sqrt(sums[GRADIENT] / statistics.grad_n) if statistics.grad_n else mean * np.nan
        rate = s["active"] / statistics.n if statistics.n else mean * np.nan
        constant = variance <= 1e-14 * beside**2  # a variance this small is its rounding error
    return {
        "n": np.full(len(mean), statistics.n, np.int64),
        "active": s["active"].copy(),
        "rate": rate,
        "silent_for": s["silent_for"].copy(),
        "mean": mean,
        "std": np.sqrt(np.where(constant, 0.0, variance)),
        "max": np.where(finite > 0, sums[MAX], np.nan),
        "non_finite": s["non_finite"].copy(),
        "grad_rms": rms,
    }


def to_state(statistics: UnitStatistics) -> dict[str, Any]:
    """State that consists of tensors and plain values only."""
    counts, sums = statistics.counts.clone(), statistics.sums.clone()
    return {"n": statistics.n, "grad_n": statistics.grad_n, "counts": counts, "sums": sums}


def from_state(
    state: Mapping[str, Any], device: torch.device | str = "cpu", into: UnitStatistics | None = None
) -> UnitStatistics:
    """Statistics from the state written by `to_state`; `into` is overwritten and returned if given."""
    statistics = into or empty(state["counts"].shape[1], device)
    statistics.n, statistics.grad_n, statistics.observed = state["n"], state["grad_n"], True
    statistics.counts.copy_(state["counts"])
    sums = state["sums"]
    if len(sums) == SHIFT:  # written by a version that summed around 0
        sums = torch.cat([sums, torch.zeros_like(sums[:1])])
    statistics.sums.copy_(sums)
    return statistics
