"""Input moments: mean and rms of a step's inputs, comparable between steps.

Between two steps, a model may also be called on single inputs, for example to choose an action. Once autograd
has recorded a forward, other forwards no longer count. A step with far fewer inputs than usual is ignored:
the rms of a few inputs varies by chance.
"""

from __future__ import annotations

from collections import deque
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

USUAL = 50  # steps that define the usual number of inputs
FEW = 0.5  # share of it below which a step is ignored


class InputMoments:
    """Gathers the inputs of a step's forwards, on their device."""

    def __init__(self) -> None:
        self._sums: list[tuple[Tensor, Tensor]] = []  # mean and mean square of each forward
        self._sizes: list[tuple[int, int]] = []  # numbers of inputs and of their values
        self._usual: deque[int] = deque(maxlen=USUAL)
        self._trains = False
        self._first: dict[int, Tensor] = {}  # number of tensors → rms of each in the first such forward

    def add(self, *tensors: Tensor) -> None:
        """Add the inputs of a forward; several tensors count alike, whatever their sizes."""
        if torch.is_grad_enabled() and not self._trains:
            self._trains = True
            self.forget()
        if torch.is_grad_enabled() is not self._trains:
            return
        moments = [_moments(x.float()) for x in tensors]
        self._sums.append(moments[0] if len(moments) == 1 else self._joined(moments))
        x = tensors[0]
        self._sizes.append((len(x) if x.ndim else 1, x.numel()))

    def _joined(self, moments: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Moments of several tensors: each in units of its first rms, all in that of the first tensor."""
        found = torch.stack([torch.stack(each).to(moments[0][0].device) for each in moments])
        if len(moments) not in self._first:
            rms = found[:, 1].sqrt()
            self._first[len(moments)] = torch.where(rms > 0, rms, torch.ones_like(rms))
        unit = self._first[len(moments)].to(found.device)
        means, squares = found[:, 0] / unit, found[:, 1] / unit.square()
        return means.mean() * unit[0], squares.mean() * unit[0].square()

    def forget(self) -> None:
        """Discard the inputs since the last step."""
        self._sums.clear()
        self._sizes.clear()

    def take(self) -> tuple[Any, Any]:
        """Mean and rms of the inputs since the last call; NaN if there are too few."""
        sums, sizes = self._sums, self._sizes
        self._sums, self._sizes = [], []
        count = sum(inputs for inputs, _ in sizes)
        if not count:
            return np.nan, np.nan
        self._usual.append(count)
        if count < FEW * median(self._usual):
            return np.nan, np.nan
        whole = sum(values for _, values in sizes)
        mean = sum((m * (n / whole) for (m, _), (_, n) in zip(sums, sizes, strict=True)), sums[0][0] * 0)
        square = sum((s * (n / whole) for (_, s), (_, n) in zip(sums, sizes, strict=True)), sums[0][1] * 0)
        return mean, observed(square.sqrt())


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and mean square."""
    norm = torch.linalg.vector_norm(x).double()  # its square would overflow first
    return x.mean().double(), norm.square() / x.numel()


def observed(norm: Any) -> Any:
    """A norm that was observed: infinite if it is not finite, since NaN means not observed."""
    if isinstance(norm, Tensor):
        return norm.nan_to_num(torch.inf, torch.inf)
    return norm if norm == norm else np.inf
