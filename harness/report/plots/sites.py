"""The rows of a history that a figure shows, and notes about them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.special import betainc

from harness.detector.grid import one_evidence, telling
from harness.detector.states import Thresholds, rate_upper
from harness.detector.verdict import last_census
from harness.formats import span
from harness.report.plots.base import need

EVIDENCE = {"probe": "held-out inputs", "stream": "training inputs"}


def observed(history: pd.DataFrame, who: str, *columns: str) -> pd.DataFrame:
    """Rows of observed units, of the probe if there is one, with strings as plain objects.

    Raises:
        ValueError: a column is missing, or no unit was observed.
    """
    need(history, ("evidence", "step", "site", "unit", "state", *columns), who)
    rows = one_evidence(history)
    rows = rows[rows["unit"] >= 0]
    if rows.empty:
        raise ValueError(f"{who}: nothing was observed")
    return rows.astype({"site": object, "state": object})


def known(rows: pd.DataFrame, who: str = "") -> pd.DataFrame:
    """Informative rows: units that are unobserved or not finite are neither dead nor alive.

    Raises:
        ValueError: there are none, and `who` requires some.
    """
    known_rows = telling(rows)
    if who and known_rows.empty:
        raise ValueError(f"{who}: no unit was observed with finite values")
    return known_rows


def share_dead(rows: pd.DataFrame, by: Sequence[str] = ()) -> pd.Series:
    """`detector.states.dead_fraction` of groups of rows: NaN if none was observed with finite values.

    Args:
        rows: rows of censuses.
        by: columns that define the groups; none: one group, called 0.

    Example:
        >>> states = ["dead", "non_finite", "active", "unobserved"]
        >>> share_dead(pd.DataFrame({"state": states})).round(2).tolist()
        [0.33]
    """
    keys = [rows[name] for name in by] or [pd.Series(0, rows.index)]
    flags = {"dead": rows["state"] == "dead", "seen": rows["state"] != "unobserved"}
    flags["finite"] = flags["seen"] & (rows["state"] != "non_finite")
    count = pd.DataFrame(flags).groupby(keys, sort=True).sum()
    return (count["dead"] / count["seen"]).where(count["finite"] > 0)


def choose(rows: pd.DataFrame, most: int) -> tuple[list[str], str]:
    """At most `most` sites, those with the largest final dead share, in the network's order.

    Returns:
        Their names, and a note if some are left out.

    Example:
        >>> r = pd.DataFrame({"site": ["a", "b"], "unit": 0, "state": ["active", "dead"]})
        >>> choose(r.assign(evidence="probe", step=1), 1)
        (['b'], '1 of 2 sites, those with most dead units')
    """
    names = [str(name) for name in rows["site"].unique()]
    if len(names) <= most:
        return names, ""
    last = last_census(rows)
    dead = (last["state"] == "dead").groupby(last["site"], sort=False).mean()
    kept = set(dead.sort_values(ascending=False, kind="stable").index[:most])
    return [
        name for name in names if name in kept
    ], f"{most} of {len(names)} sites, those with most dead units"


def _confidence(rows: pd.DataFrame) -> float:
    """The confidence of the bounds in a census, so that a figure agrees with the verdict above it."""
    if not {"active", "n", "rate_upper"} <= set(rows):
        return Thresholds().confidence
    bounded = rows[rows["active"] < rows["n"]]
    if bounded.empty:
        return Thresholds().confidence
    active, n, upper = (float(bounded[name].iloc[0]) for name in ("active", "n", "rate_upper"))
    return round(float(betainc(active + 1, n - active, upper)), 9)  # the inverse of `rate_upper`


def basis(rows: pd.DataFrame) -> str:
    """The basis of "dead": evidence, n, and the bound on a dead unit's rate."""
    n = rows.loc[rows["n"] > 0, "n"]
    if n.empty:
        return "nothing was observed"
    bound = float(rate_upper(np.array(0), np.array(n.min()), _confidence(rows)))
    end = f"dead: gate open on none, rate < {100 * bound:.2g} %"
    if is_scan(rows):
        return f"n = {span(n)} inputs; {end}"
    kind = EVIDENCE.get(str(rows["evidence"].iloc[0]), str(rows["evidence"].iloc[0]))
    return f"n = {span(n)} {kind} per census; {end}"


def is_scan(rows: pd.DataFrame) -> bool:
    """Whether the rows come from a single pass outside a training: a stream has no census at step 0."""
    return bool(((rows["step"] == 0) & (rows["evidence"] == "stream")).all())
