"""Moving input: which of a model's inputs the step metrics describe."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

FARTHER = 1.5  # times as far as the first that another input must move
LEAST = 0.1  # least motion of another input
WINDOW = 10  # steps over which a motion lasts


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
