"""The last window: units that count as alive in it, as they opened early, and have been closed since."""

from __future__ import annotations

import numpy as np

from harness.attribution.findings import LEAST_DEAD, Findings
from harness.detector.grid import telling
from harness.detector.verdict import last_census

SHORTEST = 5  # steps for which units must have been closed
CHANCE = 1e-6  # probability below which a unit's silence is no chance


def closed_within(found: Findings) -> list[str]:
    """How many units closed within the last training window, if they are many; else empty.

    Inputs of one batch are taken to be independent, positions within an input are not: a site counts as many
    as the site with the fewest.
    """
    if found.evidence != "stream" or found.diverged_at is not None or not found.total:
        return []
    rows = telling(last_census(found.rows))
    rows = rows[(rows["n"] > 0) & (rows["unit"] >= 0)]
    before = found.rows.loc[found.rows["step"] < found.at, "step"].max()
    steps = found.at - (0 if np.isnan(before) else int(before))
    n, silent = rows["n"].to_numpy(float), rows["silent_for"].to_numpy(float)
    inputs = silent * rows["n"].min() / n  # without positions
    with np.errstate(invalid="ignore", divide="ignore"):
        rate = rows["active"].to_numpy(float) / (n - silent)
        chance = np.log1p(-np.minimum(rate, 1 - 1e-12)) * inputs
    late = (silent < n) & (steps * silent / n >= SHORTEST) & (chance < np.log(CHANCE))
    if not late.any() or late.sum() < LEAST_DEAD * found.total:
        return []
    since = int(np.median(steps * (silent / n)[late]))
    return [
        f"{late.sum():,} units that count as alive closed within the last window of {steps:,} steps, half of "
        f"them for its last {since:,} steps or more: they may be dead. Shorter windows (census_every), or a "
        "probe, show it."
    ]
