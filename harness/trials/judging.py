"""Evaluate trials: which cures beat the unchanged run, by how much, and which one to recommend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import comb
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from harness.detector.verdict import HEALTHY

UNTOUCHED, AGAIN = "as it was", "as it was, other seeds"
HELPS, REVIVES, NO_HELP = "helps", "revives, no sure gain", "no sure gain"
HARMS, DIVERGES, SEED = "harms", "diverges", "no surer than another seed"
BEHIND = "fell behind"  # dropped after a round with one seed, which proves nothing
POINTS = 0.05  # smallest difference in the dead share that counts; between equal changes half of it
SLACK = 0.01  # loss in the metric that is accepted from a cure that only revives units
NOISE = 0.02  # share of the best gain: cures this close to the best count as equally good


class Interval(NamedTuple):
    """A mean and its 95 % interval."""

    mean: float
    low: float
    high: float


def judged(trials: pd.DataFrame) -> pd.DataFrame:
    """Summarise the trials in one row per arm, best metric first.

    Args:
        trials: one row per arm and seed: cure, seed, metric (higher is better; a diverged training has the
            lowest), dead (share), diverged, seconds. The arms `UNTOUCHED` and `AGAIN` are the unchanged run
            on the seeds of the cures and on other seeds.

    Returns:
        cure, seeds, metric (mean), gain over the unchanged run on all seeds with low and high (`difference`),
        dead (mean), drop of the dead share with drop_low and drop_high, diverged (runs), seconds (per run),
        verdict. A cure helps if the interval of its gain lies above 0 and it beats the unchanged run on every
        seed. One seed has no interval and proves nothing.
    """
    wide = trials.pivot(index="seed", columns="cure", values="metric")
    unchanged = trials[trials["cure"].isin((UNTOUCHED, AGAIN))]
    rows = []
    for cure, group in trials.groupby("cure", sort=False):
        row: dict[str, Any] = {
            "cure": cure,
            "seeds": len(group),
            "metric": group["metric"].mean(),
            "dead": group["dead"].mean(),
            "diverged": int(group["diverged"].sum()),
            "seconds": group["seconds"].mean(),
        }
        if cure in (UNTOUCHED, AGAIN):
            nothing = dict.fromkeys(("gain", "low", "high", "drop", "drop_low", "drop_high"), float("nan"))
            rows.append(row | nothing | {"verdict": ""})
            continue
        own = unchanged if len(group) > 1 else unchanged[unchanged["seed"].isin(group["seed"])]
        gain, drop = difference(group["metric"], own["metric"]), difference(own["dead"], group["dead"])
        each = (wide[cure] - wide[UNTOUCHED]).dropna()
        verdict = _verdict(gain, drop, each) if len(group) > 1 else BEHIND
        verdict = DIVERGES if row["diverged"] else verdict
        row |= {"gain": gain.mean, "low": gain.low, "high": gain.high, "drop": drop.mean}
        rows.append(row | {"drop_low": drop.low, "drop_high": drop.high, "verdict": verdict})
    return pd.DataFrame(rows).sort_values("metric", ascending=False, kind="stable", ignore_index=True)


def difference(values: pd.Series, others: pd.Series) -> Interval:
    """Difference of two means and its 95 % interval (Welch); its bounds are NaN for one value.

    A fault that ruins some seeds and spares others makes that interval very wide. Where it does not exclude
    0, but all values of one side exceed all of the other (with 3 and 6 values p = 2/84), the interval is that
    of the ranks (Hodges & Lehmann 1963), the range of all differences.

    Example:
        >>> difference(pd.Series([0.94, 0.95, 0.96]), pd.Series([0.9, 0.1, 0.9, 0.1, 0.9, 0.9]))
        Interval(mean=0.31..., low=0.03..., high=0.86...)
    """
    mean = float(values.mean() - others.mean())
    if min(len(values), len(others)) < 2:
        return Interval(mean, float("nan"), float("nan"))
    parts = np.array([values.var() / len(values), others.var() / len(others)])
    if parts.sum() < 1e-12:
        return Interval(mean, mean, mean)
    freedom = parts.sum() ** 2 / (parts**2 / np.array([len(values) - 1, len(others) - 1])).sum()
    half = float(stats.t.ppf(0.975, freedom) * parts.sum() ** 0.5)
    low, high = float(values.min() - others.max()), float(values.max() - others.min())
    apart = (low > 0 or high < 0) and 2 / comb(len(values) + len(others), len(values)) <= 0.05
    return (
        Interval(mean, low, high) if apart and abs(mean) <= half else Interval(mean, mean - half, mean + half)
    )


def recommended(
    table: pd.DataFrame,
    changes: Mapping[str, int],
    order: Sequence[str],
    *,
    learned: bool,
    scale: float = 1.0,
) -> str:
    """Return the smallest change within the noise of the best cure that leaves few dead; "" if none helped.

    Args:
        table: result of `judged`.
        changes: cure → how much it changes.
        order: the cures, most likely first; breaks ties between changes of the same size that leave about
            as many units dead.
        learned: whether the unchanged run learned anything. Only then does reviving units at the same metric
            count as a cure.
        scale: scale of the metric: what counts as one whole unit; 1 for a share.
    """
    error = (table["high"] - table["low"]) / 4  # about one standard error of a gain
    near = table[table["verdict"].eq(HELPS)]
    if len(near):
        best = near.iloc[0]
        room = max(NOISE * best["gain"], min(error[near.index[0]], SLACK * scale), SLACK * scale / 2)
        near = near[near["metric"] >= best["metric"] - room]
    elif learned:  # no gain in the metric is certain, so cures that revive units compete
        near = table[table["verdict"].eq(REVIVES) & table["gain"].ge(-np.maximum(error, SLACK * scale))]
    if near.empty:
        return ""
    near = near[near["dead"] <= max(near["dead"].min() + POINTS, HEALTHY)]
    size = near["cure"].map(changes)
    near = near[size.eq(size.min())]
    near = near[near["dead"] <= near["dead"].min() + POINTS / 2]
    return min(near["cure"], key=list(order).index)


def _verdict(gain: Interval, drop: Interval, each: pd.Series) -> str:
    better = bool((each > 0).all())
    if gain.low > 0 and better:
        return HELPS
    if gain.high < 0:
        return HARMS
    if drop.low > 0 and drop.mean >= POINTS:
        return REVIVES
    return SEED if better else NO_HELP
