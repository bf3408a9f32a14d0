"""What the trials say: which cure wins against the run as it was, by how much, and which to take."""

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
BEHIND = "fell behind"  # in the round of one seed, which proves nothing
POINTS = 0.05  # of the dead share: a difference that counts
SLACK = 0.01  # of the metric: what a cure that only revives units may cost
NOISE = 0.02  # of the best gain: cures this near to the best are as good


class Interval(NamedTuple):
    """A mean and its 95 % interval."""

    mean: float
    low: float
    high: float


def judged(trials: pd.DataFrame) -> pd.DataFrame:
    """One row per arm, the best metric first.

    Args:
        trials: one row per arm and seed: cure, seed, metric (higher is better, that of a diverged training
            the lowest), dead (share), diverged, seconds. The arms `UNTOUCHED` and `AGAIN` are the run as it
            was, on the seeds of the cures and on others.

    Returns:
        cure, seeds, metric (mean), gain with low and high (paired by seed, Student's t), dead (mean), drop of
        the dead share with drop_low and drop_high, diverged (runs), seconds (of one run), verdict. A cure
        helps if its gain is above 0 for sure on the same seeds, and its mean above that of the untouched on
        all seeds (Welch). One seed has no interval, and proves nothing.
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
    """The mean of differences of the same seeds; without spread it is its own bounds, one seed has none."""
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
    """The smallest change within the noise of the best cure; "" if none helped.

    Args:
        table: of `judged`.
        changes: cure → how much it changes.
        order: of the cures, the likeliest first; it decides between changes of one size.
        learned: whether the run as it was learned anything. Only then is it a cure to revive units at the
            same metric.
        scale: of the metric: what counts as a whole unit of it, 1 for a share.
    """
    error = (table["high"] - table["low"]) / 4  # about one standard error of a gain
    near = table[table["verdict"].eq(HELPS)]
    if len(near):
        best = near.iloc[0]
        room = max(NOISE * best["gain"], min(error[near.index[0]], SLACK * scale), SLACK * scale / 2)
        near = near[near["metric"] >= best["metric"] - room]
    elif learned:  # then the metric tells them not apart
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
    """Whether a mean is above that of other seeds for sure (Welch)."""
    parts = np.array([metric.var() / len(metric), others.var() / len(others)])
    gain = metric.mean() - others.mean()
    if parts.sum() < 1e-12:
        return bool(gain > 0)
    freedom = parts.sum() ** 2 / (parts**2 / np.array([len(metric) - 1, len(others) - 1])).sum()
    return bool(gain > stats.t.ppf(0.975, freedom) * parts.sum() ** 0.5)
