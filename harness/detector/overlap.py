"""Whether the same units stay dead: the overlap coefficient of dead sets over time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from harness.detector.grid import census_grid

AGAINST = ("previous", "first", "last")


def overlap(
    history: pd.DataFrame, *, against: str = "previous", down: Sequence[str] = ("dead",)
) -> pd.DataFrame:
    """The overlap coefficient of each census's dead set with another's, by site.

    It is the size of the intersection over that of the smaller set (Sokar et al. 2023, 2302.12902): 1 if one
    set is a subset of the other. Only units observed and finite in both censuses are counted.

    Args:
        history: censuses with the columns evidence, step, site, unit and state.
        against: the other census: "previous" (then the first one has no row), "first" or "last".
        down: the states that count as dead.

    Returns:
        One row per census and site: step, site, other (its step), units (in both), dead, dead_other, both,
        overlap (NaN if a set is empty), chance (expected overlap of two random sets of these sizes).

    Raises:
        ValueError: a needed column is missing, or `against` has another value.

    Example:
        >>> rows = [(0, 0, "dead"), (0, 1, "dead"), (0, 2, "active"), (0, 3, "active"),
        ...         (5, 0, "dead"), (5, 1, "active"), (5, 2, "active"), (5, 3, "active")]
        >>> h = pd.DataFrame(rows, columns=["step", "unit", "state"]).assign(evidence="probe", site="a")
        >>> overlap(h)[["step", "dead", "dead_other", "overlap", "chance"]].values.tolist()
        [[5.0, 1.0, 2.0, 1.0, 0.5]]
    """
    if against not in AGAINST:
        raise ValueError(f"against: expected one of {', '.join(AGAINST)}, but got {against!r}")
    grid = census_grid(history, down)
    observed, dead, step = grid.observed, grid.dead, grid.step
    if against == "previous":
        here, there = slice(1, None), slice(None, -1)
    else:
        here, there = slice(None), (slice(0, 1) if against == "first" else slice(len(step) - 1, None))
    common = observed[here] & observed[there]
    counts = [
        grid.per_site(values)
        for values in (
            common,
            common & dead[here],
            common & dead[there],
            common & dead[here] & dead[there],
        )
    ]
    units, a, b, both = (count.ravel() for count in counts)
    censuses, sites = counts[0].shape
    smaller, larger = np.minimum(a, b), np.maximum(a, b)
    empty = smaller == 0
    return pd.DataFrame(
        {
            "step": np.repeat(step[here], sites),
            "site": np.tile(grid.sites.astype(object), censuses),
            "other": np.repeat(np.broadcast_to(step[there], censuses), sites),
            "units": units,
            "dead": a,
            "dead_other": b,
            "both": both,
            "overlap": np.where(empty, np.nan, both / np.where(empty, 1, smaller)),
            "chance": np.where(empty, np.nan, larger / np.maximum(units, 1)),
        }
    )
