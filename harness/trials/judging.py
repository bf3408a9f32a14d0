"""Evaluate trials: which cures beat the unchanged run, by how much, and which one to recommend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from harness.detector.verdict import HEALTHY

UNTOUCHED, AGAIN = "as it was", "as it was, other seeds"
HELPS, REVIVES, NO_HELP = "helps", "revives, no sure gain", "no sure gain"
HARMS, DIVERGES, SEED = "harms", "diverges", "no surer than another seed"
BEHIND = "fell behind"  # dropped after a round with one seed, which proves nothing
POINTS = 0.05  # smallest difference in the dead share that counts
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
        cure, seeds, metric (mean), gain with low and high (paired by seed, Student's t), dead (mean), drop of
        the dead share with drop_low and drop_high, diverged (runs), seconds (per run), verdict. A cure helps
        if the interval of its paired gain lies above 0 and its mean is significantly above that of the
        unchanged run on all seeds (Welch's t-test). One seed has no interval and proves nothing.
    """
    wide = {name: trials.pivot(index="seed", columns="cure", values=name) for name in ("metric", "dead")}
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
        gain = paired(wide["metric"][cure] - wide["metric"][UNTOUCHED])
        drop = paired(wide["dead"][UNTOUCHED] - wide["dead"][cure])
        again = trials.loc[trials["cure"].isin((UNTOUCHED, AGAIN)), "metric"]
        if row["diverged"]:
            verdict = DIVERGES
        else:
            verdict = _verdict(gain, drop, group["metric"], again) if len(group) > 1 else BEHIND
        row |= {"gain": gain.mean, "low": gain.low, "high": gain.high, "drop": drop.mean}
        rows.append(row | {"drop_low": drop.low, "drop_high": drop.high, "verdict": verdict})
    return pd.DataFrame(rows).sort_values("metric", ascending=False, kind="stable", ignore_index=True)


def paired(differences: pd.Series) -> Interval:
    """Mean of paired differences and its interval: NaN bounds for one seed, zero width without spread."""
    values = differences.dropna().to_numpy(float)
    mean = float(values.mean()) if len(values) else float("nan")
    if len(values) < 2:
        return Interval(mean, float("nan"), float("nan"))
    if np.ptp(values) < 1e-9:
        return Interval(mean, mean, mean)
    low, high = stats.t.interval(0.95, len(values) - 1, mean, stats.sem(values))
    return Interval(mean, float(low), float(high))


def recommended(
    table: pd.DataFrame,
    changes: Mapping[str, int],
    order: Sequence[str],
    *,
    learned: bool,
    scale: float = 1.0,
) -> str:
    """Return the smallest change within the noise of the best cure; "" if none helped.

    Args:
        table: result of `judged`.
        changes: cure → how much it changes.
        order: the cures, most likely first; breaks ties between changes of the same size.
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
    return min(near["cure"], key=lambda cure: (changes[cure], list(order).index(cure)))


def _verdict(gain: Interval, drop: Interval, metric: pd.Series, again: pd.Series) -> str:
    if gain.low > 0:
        return HELPS if _above(metric, again) else SEED
    if gain.high < 0:
        return HARMS
    if drop.low > 0 and drop.mean >= POINTS:
        return REVIVES
    return NO_HELP


def _above(metric: pd.Series, others: pd.Series) -> bool:
    """Whether the mean is significantly above that of the other trials (Welch's t-test, 97.5 % quantile)."""
    parts = np.array([metric.var() / len(metric), others.var() / len(others)])
    gain = metric.mean() - others.mean()
    if parts.sum() < 1e-12:
        return bool(gain > 0)
    freedom = parts.sum() ** 2 / (parts**2 / np.array([len(metric) - 1, len(others) - 1])).sum()
    return bool(gain > stats.t.ppf(0.975, freedom) * parts.sum() ** 0.5)
