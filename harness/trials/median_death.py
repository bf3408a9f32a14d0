"""The step by which half of the final deaths have happened: a trial of that length shows the cause."""

from __future__ import annotations

import numpy as np
import pandas as pd

from harness.detector.lifetimes import one_evidence
from harness.detector.states import dead_fraction

LEAST_STEPS = 10


def median_death(history: pd.DataFrame, total: int, diverged_at: int | None = None) -> int:
    """Return the step of the first census from which on the dead share stays at half its final value or more.

    Args:
        history: every census of a training, at least one.
        total: length of the training, in steps.
        diverged_at: the step at which the training diverged, if it did.
    """
    found = {int(str(step)): dead_fraction(rows) for step, rows in one_evidence(history).groupby("step")}
    shares = {step: share for step, share in sorted(found.items()) if np.isfinite(share)}
    if diverged_at is not None:
        shares[int(diverged_at)] = 1.0
    steps, dead = np.array(list(shares)), np.array(list(shares.values()))
    below = np.flatnonzero(dead < dead[-1] / 2)
    first = steps[below[-1] + 1] if len(below) else steps[0]
    return max(LEAST_STEPS, min(int(first), max(total, LEAST_STEPS)))
