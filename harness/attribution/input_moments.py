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

    def add(self, x: Tensor) -> None:
        """Add the inputs of a forward."""
        if torch.is_grad_enabled() and not self._trains:
            self._trains = True
            self.forget()
        if torch.is_grad_enabled() is not self._trains:
            return
        x = x.float()
        norm = torch.linalg.vector_norm(x).double()  # its square would overflow first
        self._sums.append((x.mean().double(), norm.square() / x.numel()))
        self._sizes.append((len(x) if x.ndim else 1, x.numel()))

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


def observed(norm: Any) -> Any:
    """A norm that was observed: infinite if it is not finite, since NaN means not observed."""
    if isinstance(norm, Tensor):
        return norm.nan_to_num(torch.inf, torch.inf)
    return norm if norm == norm else np.inf
