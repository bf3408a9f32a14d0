"""Loss scaling: divide the gradients of a scaled loss by the scale of their backward pass.

The scale can change between two backward passes of a window, when the scaler updates it. The squares of one
backward pass are therefore kept separate until the next one begins; then they are unscaled and added to those
of the window. The scale is read once per backward pass, as a tensor on the device, without synchronising.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from harness.hooks._torch import graph_task, zero_all
from harness.kernels.accumulators import GRADIENT
from harness.kernels.statistics import UnitStatistics


class Scaler(Protocol):
    """The used part of the interface of `torch.amp.GradScaler`."""

    def scale(self, outputs: Any) -> Any: ...
    def get_scale(self) -> float: ...
    def is_enabled(self) -> bool: ...


def as_scaler(given: Any) -> Scaler | None:
    """Return the scaler; None if there is none or it is disabled.

    Raises:
        TypeError: `given` is not a scaler.

    Example:
        >>> as_scaler(torch.amp.GradScaler("cpu", enabled=False)) is None
        True
    """
    if given is None:
        return None
    if not all(callable(getattr(given, name, None)) for name in ("scale", "get_scale", "is_enabled")):
        raise TypeError(f"scaler: expected a torch.amp.GradScaler, but got {type(given).__name__}")
    return given if given.is_enabled() else None


class LossScale:
    """Removes the loss scale from the sums of ∂L/∂z.

    While open, the row GRADIENT of the sums holds the scaled squares of one backward pass; while closed, the
    unscaled squares of the whole window. A non-finite gradient belongs to a step that the scaler skips:
    neither its value nor its inputs count.

    Args:
        scaler: the scaler.
        statistics: statistics of all sites; sites may be appended while it is closed.
        failed: called with an internal error; from then on the sums stay as they are.
    """

    def __init__(
        self, scaler: Scaler, statistics: Sequence[UnitStatistics], failed: Callable[[Exception], None]
    ) -> None:
        self._scaler, self._statistics, self._failed = scaler, statistics, failed
        self._lock = threading.Lock()
        self._parts: list[_Part] = []
        self._task = -1
        self._open = self._off = False

    def gradient(self) -> None:
        """Called for every gradient; the first one of a backward pass opens it."""
        task = graph_task()
        if (task == self._task and self._open and task != -1) or self._off:
            return
        with self._lock:
            try:
                self._task = task
                if self._open:
                    for part in self._parts:
                        part.fold()
                else:
                    self._parts = _parts(self._statistics)
                    self._open = True
                for part in self._parts:
                    part.scale = self._scale(part.device)
            except Exception as error:
                self._stop(error)

    def close(self) -> None:
        """Turn the sums into unscaled ones, as a census reads them."""
        if not self._open:
            return
        with self._lock:
            try:
                self._open = False
                for part in self._parts:
                    part.fold()
                    part.write_back()
            except Exception as error:
                self._stop(error)

    def _scale(self, device: torch.device) -> Tensor | float:
        if device.type == "cpu":
            return float(self._scaler.get_scale())  # synchronises only if layers are offloaded to the CPU
        return self._scaler.scale(torch.ones((), dtype=torch.float64, device=device))

    def _stop(self, error: Exception) -> None:
        self._open, self._off = False, True
        self._failed(error)


class _Part:
    """The sites on one device, with concatenated units."""

    def __init__(self, device: torch.device, statistics: list[UnitStatistics]) -> None:
        self.device, self._statistics = device, statistics
        self.scale: Tensor | float = 1.0
        self._rows = [one.sums[GRADIENT] for one in statistics]
        self._sizes = [one.size for one in statistics]
        self._total = torch.cat(self._rows)
        self._dropped = torch.zeros_like(self._total)
        self._seen = [one.grad_n for one in statistics]
        self._known: tuple[list[int], Tensor] | None = None
        zero_all(self._rows)

    def fold(self) -> None:
        """Unscale the squares of one backward pass, and add them to those of the window."""
        inputs = [one.grad_n - seen for one, seen in zip(self._statistics, self._seen, strict=True)]
        if not any(inputs):
            return
        self._seen = [one.grad_n for one in self._statistics]
        squares = torch.cat(self._rows) / self.scale / self.scale
        finite = squares.isfinite()
        self._total += squares.where(finite, 0.0)
        self._dropped += self._by_unit(inputs).where(~finite, 0.0)
        zero_all(self._rows)

    def write_back(self) -> None:
        """Write the sums, as if inputs with non-finite gradients had the mean square; NaN if all are such."""
        n = self._by_unit([one.grad_n for one in self._statistics])
        value = self._total.where(self._dropped == 0, self._total * n / (n - self._dropped))
        for row, part in zip(self._rows, value.split(self._sizes), strict=True):
            row.copy_(part)

    def _by_unit(self, numbers: list[int]) -> Tensor:
        """Expand one number per site to one per unit; cached, since batches mostly have the same size."""
        if self._known is None or self._known[0] != numbers:
            each = torch.from_numpy(np.repeat(np.array(numbers, np.float64), self._sizes))
            self._known = numbers, each.to(self.device, non_blocking=True)
        return self._known[1]


def _parts(statistics: Sequence[UnitStatistics]) -> list[_Part]:
    devices = dict.fromkeys(one.counts.device for one in statistics)
    return [_Part(device, [one for one in statistics if one.counts.device == device]) for device in devices]
