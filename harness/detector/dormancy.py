"""Dormancy: units whose activation or gradient is small compared with the mean of their layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

TAUS = (0.0, 0.025, 0.1)
#: Column → the kind of dormancy it measures.
SCORES = {
    "grad_norm": "gradient-dormant: norm of the incoming weights' gradient (Ji et al. 2024, 2402.14528)",
    "grad_rms": "gradient-dormant: root mean square of the gradient w.r.t. the pre-activation "
    "(after GraMa, 2505.24061, which takes the mean absolute gradient w.r.t. the output)",
    "mean_abs": "τ-dormant: mean absolute activation (Sokar et al. 2023, 2302.12902)",
}


def dormancy(census: pd.DataFrame, *, score: str = "grad_norm", taus: Sequence[float] = TAUS) -> pd.DataFrame:
    """The share of dormant units by site and τ: score / mean score of the layer ≤ τ.

    Dormant is not a synonym of dead: a healthy layer has dormant units, too. A census holds pre-activations,
    so τ-dormancy of activations needs an additional column, `mean_abs`; gradient dormancy does not. Units
    without a score (NaN: an evaluation pass, no producer with a row per unit) count neither as dormant nor as
    units. If all scores of a layer are 0, all its units are dormant.

    Args:
        census: rows of one or several censuses with evidence, step, site, unit and the score's column.
        score: a column of non-negative scores; `SCORES` describes the known ones.
        taus: thresholds.

    Returns:
        One row per evidence, step, site and τ: units (with a score), dormant, share (NaN without units),
        dead (how many of the dormant are dead; only if there is a column state).

    Raises:
        ValueError: a column is missing, or a score or τ is negative.

    Example:
        >>> c = pd.DataFrame({"site": "a", "unit": [0, 1, 2, 3], "grad_norm": [0.0, 0.02, 2.0, 1.98]})
        >>> found = dormancy(c.assign(evidence="stream", step=9))
        >>> found[["tau", "units", "dormant", "share"]].values.tolist()
        [[0.0, 4.0, 1.0, 0.25], [0.025, 4.0, 2.0, 0.5], [0.1, 4.0, 2.0, 0.5]]
    """
    needed = ("evidence", "step", "site", "unit", score)
    missing = [c for c in needed if c not in census]
    if missing:
        known = ", ".join(name for name in SCORES if name in census)
        raise ValueError(
            f"expected a census with the columns {', '.join(needed)}, but {', '.join(missing)} is missing"
            + (f"; scores that it has: {known}" if known else "")
        )
    if any(not tau >= 0 for tau in taus):
        raise ValueError(f"taus: expected numbers of at least 0, but got {list(taus)}")
    rows = census.loc[np.isfinite(census[score].to_numpy(float)) & (census["unit"] >= 0).to_numpy()]
    keys = ["evidence", "step", "site"]
    if (rows[score] < 0).any():
        raise ValueError(f"score: expected a column without negative values, but {score} has some")
    values = rows[score].to_numpy(float)
    groups = rows[keys].assign(score=values).groupby(keys, sort=False, observed=True)["score"]
    mean = groups.transform("mean").to_numpy()
    order = census[keys].drop_duplicates().reset_index(drop=True)
    tables = []
    for tau in taus:
        dormant = values <= tau * mean
        flags = rows[keys].assign(units=1, dormant=dormant.astype(int))
        if "state" in rows:
            flags["dead"] = (dormant & (rows["state"] == "dead").to_numpy()).astype(int)
        sums = flags.groupby(keys, sort=False, observed=True).sum().reset_index()
        tables.append(order.merge(sums, how="left", on=keys).assign(tau=float(tau)))
    found = pd.concat(tables, ignore_index=True)
    counts = [name for name in ("units", "dormant", "dead") if name in found]
    found[counts] = found[counts].fillna(0).astype(int)
    found["share"] = (found["dormant"] / found["units"]).where(found["units"] > 0)
    place = found.groupby(keys, sort=False, observed=True).ngroup()
    found = found.iloc[np.lexsort((found["tau"], place))].reset_index(drop=True)
    return found[[*keys, "tau", "units", "dormant", "share", *(["dead"] if "dead" in found else [])]]
