"""Input moments: mean and rms of a step's inputs, comparable between steps, and which input moves most.

Between two steps, a model may also be called on single inputs, for example to choose an action. Once autograd
has recorded a forward, other forwards no longer count. A step with far fewer inputs than usual is ignored:
the rms of a few inputs varies by chance.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

USUAL = 50  # steps that define the usual number of inputs
FEW = 0.5  # share of it below which a step is ignored
FARTHER = 1.5  # times as far as the first that another input must move
LEAST = 0.1  # least motion of another input
WINDOW = 10  # steps over which a motion lasts


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


def moving_input(pairs: Sequence[np.ndarray]) -> int:
    """The place of the input that moves most in a training; the first, unless another moves far more.

    Args:
        pairs: for each place, mean and rms of its inputs (steps, 2); NaN if none was seen.

    Example:
        >>> still = np.ones((20, 2))
        >>> moved = still * np.repeat([1.0, 30.0], 10)[:, None]
        >>> moving_input([still, moved]), moving_input([still, still])
        (1, 0)
    """
    motions = [_motion(pd.DataFrame(pair, columns=["mean", "rms"])) for pair in pairs]
    most = int(np.argmax(motions))
    return most if motions[most] > FARTHER * max(motions[0], LEAST) else 0


def _motion(pair: pd.DataFrame) -> float:
    """How far an input's size (its logarithm) or mean (in units of its size) gets from its median."""
    known = pair[np.isfinite(pair["rms"]) & (pair["rms"] > 0)]
    if 2 * len(known) <= len(pair):  # too few, or infinite as those of a mask that is added
        return 0.0
    size, shift = known["rms"].map(math.log), known["mean"] / known["rms"].median()
    size, shift = (size - size.median()).abs(), (shift - shift.median()).abs()
    lasting = [one.rolling(WINDOW, min_periods=1).median().max() for one in (size, shift)]
    return float(max(*lasting, size.max() / 2))  # one step alone counts half
