"""Which members of a stack have diverged, and at which step."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from harness.training.stacked.parameters import Parameter


def divergences(losses: np.ndarray, step: int, parameters: Sequence[Parameter] = ()) -> dict[int, int]:
    """Place of each diverged member → the step at which it diverged.

    Args:
        losses: (steps, K) losses of the latest steps.
        step: the last of these steps.
        parameters: parameters after it; empty to look at losses alone.

    Example:
        >>> divergences(np.array([[1.0, 2.0], [1.0, np.inf], [1.0, np.nan]]), 10)
        {1: 9}
    """
    good = np.isfinite(losses)
    sound = np.ones(losses.shape[1], bool)
    for p in parameters:
        if not math.isfinite(p.value.sum()):  # quick check of all members, four times as fast
            finite = p.value.flatten(1).isfinite().all(1).cpu().numpy()
            sound[p.members.start : p.members.stop] &= finite
    found = {int(place): step for place in np.flatnonzero(~sound)}
    first = step + 1 - len(losses)
    for place in np.flatnonzero(~good.all(0)):
        found[int(place)] = first + int(good[:, place].argmin())
    return dict(sorted(found.items()))
