"""Risk: which of the units that are alive are likely to be dead at the end.

A logistic model of the values in a census. Units die in groups: the state of a unit's layer is more
informative than the unit's own margin. The coefficients were fitted on runs on digits, at a tenth of their
steps, and are fixed; `experiments.benchmarks.risk` evaluates them on other data, depths, widths and
optimizers. There the ranking holds, while the probabilities are too low by half on average, because other
networks have another base rate.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.special import expit

from harness.detector.grid import one_evidence, telling

#: Coefficients of the log-odds of being dead at the end.
COEFFICIENTS = {
    "dead": 3.934,  # now
    "log_rate": -0.684,  # log10 of the activation rate, at least half an input
    "margin": -0.265,  # largest pre-activation, in deviations, within ±8
    "layer_dead": 2.911,  # dead share of the unit's layer
    "layer_rate": -1.152,  # mean activation rate of the unit's layer
    "dead_in_dead_layer": -4.775,  # a dead unit in a dead layer may revive with it
}
#: Chosen so that the mean risk of living units in the fitted runs is the share of them that died.
INTERCEPT = -4.084
BASE_RATE = {"runs fitted on": 0.028, "other settings": 0.053}  # share of living units that died
#: Area under the ROC curve at a tenth of the steps, on settings not used for fitting: of all units, and of
#: those alive then (`python -m experiments.benchmarks.risk`).
AUC = {"all units": 0.96, "alive now": 0.91}
COLUMNS = ["site", "unit", "risk", "state", "rate", "margin", "layer_dead", "layer_rate"]


def risk(history: pd.DataFrame, step: int | None = None) -> pd.DataFrame:
    """The living units of a run, those most at risk first; dead units are left out.

    Args:
        history: its censuses (`Recorder.history()`, `run.census`).
        step: step of the census to use; None: the last one.

    Returns:
        One row per unit that is observed, finite and alive: site, unit, risk (probability of being dead at
        the end; the ranking is more reliable than the value), state, rate, margin (largest pre-activation in
        deviations), layer_dead, layer_rate. `attrs`: dead (number of dead units left out), base_rate (a
        reference value for risks).

    Raises:
        TypeError: `history` is not a table.
        ValueError: a needed column is missing, or there is no finite census at that step.

    Example:
        >>> rows = {"evidence": "probe", "step": 0, "site": "a", "unit": [0, 1], "n": 100, "active": [2, 60]}
        >>> rows |= {"rate": [0.02, 0.6], "max": [0.1, 2.0], "std": 1.0, "non_finite": 0, "state": "active"}
        >>> risk(pd.DataFrame(rows)).unit.tolist()
        [0, 1]
    """
    if not isinstance(history, pd.DataFrame):
        kind = type(history).__name__
        raise TypeError(f"risk: expected a history of censuses (`recorder.history()`), but got {kind}")
    needed = ("evidence", "step", "site", "unit", "n", "active", "rate", "max", "std", "state")
    missing = [name for name in needed if name not in history]
    if missing:
        raise ValueError(
            f"risk: expected a history of censuses, but the columns {', '.join(missing)} are missing"
        )
    rows = telling(one_evidence(history))
    if rows.empty:
        raise ValueError(
            "risk: no unit was observed with finite values in any census, so none can be ordered"
        )
    at = rows["step"].max() if step is None else step
    census = rows[rows["step"] == at]
    if census.empty:
        known = ", ".join(str(s) for s in rows["step"].unique()[:20])
        raise ValueError(f"risk: expected a step with a finite census, but got {at}. Steps: {known}")
    found = features(census)
    log_odds = INTERCEPT + sum(weight * found[name] for name, weight in COEFFICIENTS.items())
    table = census[["site", "unit", "state", "rate"]].assign(
        risk=expit(log_odds),
        margin=found["margin"],
        layer_dead=found["layer_dead"],
        layer_rate=found["layer_rate"],
    )
    alive = table.loc[census["active"] > 0, COLUMNS]
    ordered = alive.sort_values("risk", ascending=False, kind="stable").reset_index(drop=True)
    ordered.attrs |= {"dead": len(table) - len(alive), "base_rate": BASE_RATE["runs fitted on"]}
    return ordered


def features(census: pd.DataFrame) -> pd.DataFrame:
    """The model's variables for one census, a column per coefficient."""
    dead = (census["active"] == 0).astype(float)
    sites = census["site"].astype(object)
    spread = census["std"].to_numpy(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        margin = np.nan_to_num(census["max"].to_numpy(float) / spread, nan=0.0)
    layer_dead = dead.groupby(sites).transform("mean")
    return pd.DataFrame(
        {
            "dead": dead,
            "log_rate": np.log10(np.maximum(census["rate"], 0.5 / census["n"])),
            "margin": np.clip(margin, -8, 8),
            "layer_dead": layer_dead,
            "layer_rate": census["rate"].groupby(sites).transform("mean"),
            "dead_in_dead_layer": dead * layer_dead,
        },
        index=census.index,
    )
