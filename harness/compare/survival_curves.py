"""Survival of units: Kaplan–Meier curves, dead shares and rates over time, clustered by seed.

Units of one run are not independent, and neither are runs that share a seed. A cluster is all runs of a
setting that share a seed; intervals come from the variation between clusters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import stats

from harness.compare.bootstrap import mean_interval
from harness.compare.design import seed_codes, settings
from harness.compare.frames import factors_by, setting_words, tally
from harness.compare.life_tables import Lives, as_lives
from harness.detector.two_state import PER

if TYPE_CHECKING:
    from harness.store.runs import Runs


def survival(runs: Runs | Lives, by: Sequence[str] = (), *, confidence: float = 0.95) -> pd.DataFrame:
    """Kaplan–Meier curves of units: the share of units alive at first that have not died yet.

    A unit's age is the number of steps; its event is the first death; it enters with its first census and is
    censored at its last. Units born dead never enter and are counted separately. Deaths are seen at censuses
    only, so the curve falls there. Runs that diverged count up to their last good census.

    Args:
        runs: runs, or their `lives` to make several tables from one pass.
        by: factors; one curve per setting.
        confidence: confidence of the pointwise intervals.

    Returns:
        One row per setting and census step: the columns of `by`, setting (in words), step, survival, low,
        high (delete-one-cluster jackknife with Student's t, on the scale log(-log) where it is finite; NaN
        with a single seed; as long as no unit has died, high is 1 and low the exact bound for independent
        units), at_risk (units), died (at this step),
        runs (under observation then), seeds; and for the setting as a whole units, born_dead, diverged,
        failed, unfinished.

    Raises:
        ValueError: a factor does not exist or does not vary.
    """
    lives = as_lives(runs)
    by = factors_by(lives.outcomes, by)
    tables = []
    for setting, rows in settings(lives.outcomes, by):
        found = _counts(lives, rows)
        if found is None:
            continue
        step, clusters, deaths, at_risk, inside = found
        curve = kaplan_meier(deaths.sum(0), at_risk.sum(0))
        low, high = _jackknife(deaths, at_risk, curve, confidence)
        whole = (curve == 1) & ~np.isnan(low)
        low[whole] = ((1 - confidence) / 2) ** (1 / at_risk.sum(0)[whole])
        census = lives.counts[np.isin(lives.counts["place"].to_numpy(), rows)]
        table = pd.DataFrame({"step": step, "survival": curve, "low": low, "high": high})
        table["at_risk"], table["died"] = at_risk.sum(0).astype(int), deaths.sum(0).astype(int)
        table["runs"], table["seeds"] = inside, clusters
        table["units"] = int(census["entered"].sum() + census["born_dead"].sum())
        table["born_dead"] = int(census["born_dead"].sum())
        counts = tally(lives.outcomes["status"].to_numpy(object)[rows])
        del counts["runs"]
        tables.append(_labelled(table.assign(**counts), by, setting))
    return _joined(tables, [*by, "setting", "step", "survival", "low", "high", "at_risk", "runs"])


def kaplan_meier(deaths: np.ndarray, at_risk: np.ndarray) -> np.ndarray:
    """The product-limit estimate (Kaplan & Meier 1958) over the last axis.

    Example:
        >>> kaplan_meier(np.array([1, 0, 1]), np.array([4, 3, 2])).tolist()
        [0.75, 0.75, 0.375]
    """
    return np.cumprod(1 - deaths / np.maximum(at_risk, 1), axis=-1)


def dead_over_time(
    runs: Runs | Lives, by: Sequence[str] = (), *, sites: bool = False, confidence: float = 0.95
) -> pd.DataFrame:
    """The dead share over the steps, including revivals: the mean over seeds for each setting.

    Runs may have taken their censuses at different steps: between its first and its last, each run counts at
    every step with the share of its latest census.

    Args:
        runs: runs or their `lives`.
        by: factors; one curve per setting.
        sites: whether to make one curve per site.
        confidence: confidence of the intervals (bootstrap-t over seeds).

    Returns:
        One row per setting, (site) and step: the columns of `by`, setting, (site,) step, dead, low, high,
        runs, seeds.

    Raises:
        ValueError: a factor does not exist or does not vary.
    """
    lives = as_lives(runs)
    by = factors_by(lives.outcomes, by)
    keys = ["place", "site", "step"] if sites else ["place", "step"]
    counts = lives.counts.groupby(keys, sort=False)[["observed", "dead"]].sum().reset_index()
    counts = counts[counts["observed"] > 0]
    seed, _ = seed_codes(lives.outcomes)
    tables = []
    for setting, rows in settings(lives.outcomes, by):
        here = counts[np.isin(counts["place"].to_numpy(), rows)]
        for site, part in here.groupby("site", sort=False) if sites else [(None, here)]:
            if part.empty:
                continue
            share = part.assign(share=part["dead"] / part["observed"])
            each = share.pivot(index="place", columns="step", values="share")
            each = each.ffill(axis=1).where(each.bfill(axis=1).notna())
            table = each.groupby(seed[each.index.to_numpy(int)]).mean().to_numpy()
            ends = [mean_interval(values, confidence, (0.0, 1.0)) for values in table.T]
            found = pd.DataFrame({"step": each.columns, "dead": np.nanmean(table, axis=0)})
            found["low"], found["high"] = zip(*ends, strict=True)
            found["runs"] = each.notna().sum().to_numpy()
            found["seeds"] = (~np.isnan(table)).sum(axis=0)
            tables.append(_labelled(found, by, setting, site if sites else None))
    front = [*by, "setting", *(["site"] if sites else [])]
    return _joined(tables, [*front, "step", "dead", "low", "high", "runs", "seeds"])


def two_state_rates(
    runs: Runs | Lives, by: Sequence[str] = (), *, sites: bool = True, confidence: float = 0.95
) -> pd.DataFrame:
    """Death and revival rates per 1,000 steps of each setting (and site), with intervals over seeds.

    Args:
        runs: runs or their `lives`.
        by: factors.
        sites: one row per site; else one for all.
        confidence: confidence of the intervals (bootstrap-t over the seeds' contributions to the ratio).

    Returns:
        One row per setting and site: the columns of `by`, setting, (site,) runs, seeds, units, deaths,
        revivals, alive_steps, dead_steps, death_rate, death_low, death_high (per 1,000 steps alive),
        revival_rate, revival_low, revival_high (per 1,000 steps dead), balance (dead share at which the two
        balance). Intervals are NaN with one seed; rates are NaN if no unit was in that state for a step. If
        nothing happened, the upper bound is the exact one of a Poisson process (of independent units).

    Raises:
        ValueError: a factor does not exist or does not vary.
    """
    lives = as_lives(runs)
    by = factors_by(lives.outcomes, by)
    seed, _ = seed_codes(lives.outcomes)
    sums = ["entered", "born_dead", "deaths", "revivals", "alive_steps", "dead_steps"]
    keys = ["place", "site"] if sites else ["place"]
    counts = lives.counts.groupby(keys, sort=False)[sums].sum().reset_index()
    counts["seed"] = seed[counts["place"].to_numpy(int)]
    rows_out = []
    for setting, rows in settings(lives.outcomes, by):
        here = counts[np.isin(counts["place"].to_numpy(), rows)]
        for site, part in here.groupby("site", sort=False) if sites else [(None, here)]:
            if part.empty:
                continue
            clusters = part.groupby("seed")[sums].sum()
            total = clusters.sum()
            row = {
                **dict(zip(by, setting, strict=True)),
                "setting": setting_words(by, setting),
                **({"site": site} if sites else {}),
                "runs": part["place"].nunique(),
                "seeds": len(clusters),
                "units": int(total["entered"] + total["born_dead"]),
                **{name: int(total[name]) for name in sums[2:]},
            }
            for name, events, steps in (
                ("death", "deaths", "alive_steps"),
                ("revival", "revivals", "dead_steps"),
            ):
                found = _ratio(clusters[events].to_numpy(float), clusters[steps].to_numpy(float), confidence)
                row |= dict(zip((f"{name}_rate", f"{name}_low", f"{name}_high"), found, strict=True))
            both = row["death_rate"] + row["revival_rate"]
            row["balance"] = row["death_rate"] / both if both > 0 else np.nan
            rows_out.append(row)
    return pd.DataFrame(rows_out)


def _ratio(events: np.ndarray, steps: np.ndarray, confidence: float) -> tuple[float, float, float]:
    """Events per 1,000 steps over all clusters, with the interval of its linearisation."""
    if steps.sum() <= 0:
        return np.nan, np.nan, np.nan
    if not events.any():  # without any event there is no variation between seeds
        return 0.0, 0.0, float(PER * -np.log((1 - confidence) / 2) / steps.sum())
    rate = PER * events.sum() / steps.sum()
    parts = rate + (PER * events - rate * steps) / steps.mean()
    low, high = mean_interval(parts, confidence, (0.0, np.inf))
    return float(rate), low, high


def _counts(
    lives: Lives, rows: np.ndarray
) -> tuple[np.ndarray, int, np.ndarray, np.ndarray, np.ndarray] | None:
    """For one setting: steps (T,), number of clusters, deaths and at risk (clusters, T), runs inside (T,)."""
    counts = lives.counts[np.isin(lives.counts["place"].to_numpy(), rows)]
    if counts.empty or not counts["entered"].sum():
        return None
    seed, _ = seed_codes(lives.outcomes)
    place = counts["place"].to_numpy(int)
    seeds, row = np.unique(seed[place], return_inverse=True)
    deaths, at_risk, step = risk_sets(counts, row, len(seeds))
    span = counts.groupby("place")["step"].agg(["min", "max"]).to_numpy()
    inside = ((span[:, :1] <= step) & (step <= span[:, 1:])).sum(axis=0)
    return step, len(seeds), deaths, at_risk, inside


def risk_sets(counts: pd.DataFrame, row: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Deaths and units at risk by cluster and step, and the steps.

    Args:
        counts: counts of `Lives`.
        row: (len(counts),) cluster of each row.
        rows: number of clusters.
    """
    step, column = np.unique(counts["step"].to_numpy(), return_inverse=True)
    flat = row * len(step) + column

    def summed(name: str) -> np.ndarray:
        total = np.bincount(flat, counts[name].to_numpy(float), minlength=rows * len(step))
        return total.reshape(rows, len(step))

    entered, deaths, ended = summed("entered"), summed("died"), summed("ended")
    at_risk = np.cumsum(entered - deaths - ended, axis=1)
    at_risk = np.concatenate([np.zeros((rows, 1)), at_risk[:, :-1]], axis=1)  # just before each step
    at_risk[:, 0] += entered[:, 0]
    return deaths, at_risk, step


def _jackknife(
    deaths: np.ndarray, at_risk: np.ndarray, curve: np.ndarray, confidence: float
) -> tuple[np.ndarray, np.ndarray]:
    """Pointwise interval from curves with one cluster left out."""
    clusters = len(deaths)
    if clusters < 2:
        return np.full(len(curve), np.nan), np.full(len(curve), np.nan)
    without = kaplan_meier(deaths.sum(0) - deaths, at_risk.sum(0) - at_risk)
    t = stats.t.ppf(0.5 + confidence / 2, clusters - 1)
    factor = (clusters - 1) / clusters
    with np.errstate(divide="ignore", invalid="ignore"):
        log_log = np.log(-np.log(without))
        centre = np.log(-np.log(curve))
        finite = np.isfinite(log_log).all(axis=0) & np.isfinite(centre)
        width = t * np.sqrt(factor * np.square(log_log - log_log.mean(axis=0)).sum(axis=0))
        inner = np.exp(-np.exp(centre + width)), np.exp(-np.exp(centre - width))
    plain = t * np.sqrt(factor * np.square(without - without.mean(axis=0)).sum(axis=0))
    low = np.where(finite, inner[0], np.clip(curve - plain, 0, 1))
    high = np.where(finite, inner[1], np.clip(curve + plain, 0, 1))
    return low, high


def _labelled(table: pd.DataFrame, by: Sequence[str], setting: tuple, site: object = None) -> pd.DataFrame:
    """The table with the columns of its setting (and site) in front."""
    front = {name: [level] * len(table) for name, level in zip(by, setting, strict=True)}
    front["setting"] = [setting_words(by, setting)] * len(table)
    if site is not None:
        front["site"] = [site] * len(table)
    return pd.concat([pd.DataFrame(front, index=table.index), table], axis=1)


def _joined(tables: list[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=pd.Index(columns))
