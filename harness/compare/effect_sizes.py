"""The effect of one factor: differences between runs that share everything else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from harness.compare.bootstrap import difference_interval, mean_interval
from harness.compare.correction import adjust_tests, check_correction
from harness.compare.design import held, seed_codes, seed_means, settings
from harness.compare.frames import (
    OUTCOMES,
    baseline_of,
    cells,
    codes,
    factors_by,
    need,
    tally,
    values,
)
from harness.compare.permutation import sign_flip, two_groups
from harness.compare.survivors import CONFOUNDED

BOUNDS = (-1.0, 1.0)  # bounds of a difference of shares
COLUMNS = (
    *("factor", "level", "baseline", "outcome", "runs", "pairs", "diverged", "failed", "unfinished"),
    *("baseline_runs", "baseline_diverged", "baseline_failed", "baseline_unfinished"),
    *("mean", "baseline_mean", "difference", "low", "high", "p", "p_adjusted", "note"),
)


def effects(
    frame: pd.DataFrame,
    factor: str | Sequence[str],
    by: Sequence[str] = (),
    outcomes: Sequence[str] = OUTCOMES,
    *,
    baseline: Any = None,
    confidence: float = 0.95,
    correction: str = "max_t",
) -> pd.DataFrame:
    """Every level of a factor against its baseline, with seeds as blocks.

    Two runs are a pair if they share the seed and all other factors. Differences are averaged over the
    settings of the other factors, so that there is one per seed, the unit of analysis. If no seed was run at
    both levels, seeds are compared as independent, and the note says so. A run that diverged or failed has no
    outcome and is not part of a pair; it is counted next to the difference.

    Args:
        frame: as returned by `harness.compare.outcomes`.
        factor: a column of it, or several, whose p-values are corrected together.
        by: factors whose settings are kept apart instead of averaged.
        outcomes: dead, born_dead, died, revived, accuracy; and diverged (share of the complete runs).
        baseline: level with which the others are compared; None: null, none, false, 0 or relu if there is
            such a level, else the first.
        confidence: confidence of the intervals.
        correction: correction of the p-values over this table: "max_t" (joint sign flips of all tests, see
            `joint_sign_flips`; Holm for those without pairs), "holm", "fdr" or "none".

    Returns:
        One row per setting of `by`, level and outcome: the columns of `by`, factor, level, baseline, outcome,
        runs, pairs (seeds with a difference; 0 if they are not paired), diverged, failed, unfinished,
        baseline_runs, baseline_diverged, baseline_failed, baseline_unfinished, mean and baseline_mean (of the
        paired runs), difference, low, high (bootstrap-t over seeds), p (sign flips, exact up to 20 seeds),
        p_adjusted, note.

    Raises:
        ValueError: unknown column, level, outcome or correction, or a factor that does not vary.

    Example:
        >>> frame = pd.DataFrame({"run": list("abcdef"), "status": "finished", "seed": [0, 1, 2] * 2,
        ...                       "optim.lr": [0.1] * 3 + [1.0] * 3, "dead": [0.1, 0.2, 0.1, 0.5, 0.8, 0.5]})
        >>> table = effects(frame, "optim.lr", outcomes=["dead"])
        >>> table[["level", "baseline", "pairs", "difference", "p"]].round(3).values.tolist()
        [[1.0, 0.1, 3.0, 0.467, 0.25]]
    """
    by = factors_by(frame, by)
    names = [outcomes] if isinstance(outcomes, str) else list(outcomes)
    factors = [factor] if isinstance(factor, str) else list(factor)
    if baseline is not None and len(factors) != 1:
        raise ValueError("baseline: is a level of one factor; give that factor alone")
    check_correction(correction)
    rows = [row for one in factors for row in _rows(frame, one, by, names, baseline, confidence)]
    differences = [row.pop("differences") for row in rows]
    columns = [*by, *COLUMNS]
    result = pd.DataFrame(rows, columns=pd.Index([c for c in columns if c != "p_adjusted"]))
    paired = [d for d in differences if d is not None]
    aligned = iter(pd.concat(paired, axis=1).to_numpy(float).T if paired else ())
    tests = [None if d is None else next(aligned) for d in differences]
    adjusted = adjust_tests(result["p"].to_numpy(float), tests, correction)
    return result.assign(p_adjusted=adjusted)[columns]


def _rows(
    frame: pd.DataFrame,
    factor: str,
    by: Sequence[str],
    names: Sequence[str],
    baseline: Any,
    confidence: float,
) -> list[dict[str, Any]]:
    """The rows of one factor, each with its differences by seed, None where there are no pairs."""
    need(frame, factor)
    for name in by:
        if name == factor:
            raise ValueError(f"by: {factor} is the factor itself; give another one")
    measured = {name: values(frame, name) for name in names}
    fixed, _ = held(frame, factor, by)
    index, levels = codes(frame[factor])
    base = baseline_of(levels, baseline, factor)
    seed, seeds = seed_codes(frame)
    keys = {"cell": cells(frame, fixed), "seed": seed, "level": index}
    status = frame["status"].to_numpy(object)
    rows = []
    pair = keys["cell"] * seeds + keys["seed"]
    for setting, where in settings(frame, by):
        counts = {level: tally(status[where[index[where] == level]]) for level in range(len(levels))}
        for name in names:
            table = seed_means({key: found[where] for key, found in keys.items()}, measured[name][where])
            for level, there in counts.items():
                if level == base or not there["runs"]:
                    continue
                possible = len(np.unique(pair[where[np.isin(index[where], (level, base))]]))
                found = _compare(table, level, base, possible, confidence)
                rows.append(
                    {
                        **dict(zip(by, setting, strict=True)),
                        "factor": factor,
                        "level": levels[level],
                        "baseline": levels[base],
                        "outcome": name,
                        **there,
                        **{f"baseline_{key}": count for key, count in counts[base].items()},
                        **found,
                    }
                )
    return rows


def _compare(table: pd.DataFrame, level: int, base: int, possible: int, confidence: float) -> dict[str, Any]:
    """One level against the baseline, from means by cell, seed and level; `possible` pairs were run."""
    here, there = table[table["level"] == level], table[table["level"] == base]
    both = here.merge(there, on=["cell", "seed"], suffixes=("", "_base"))
    if len(both):
        seeds = both.groupby("seed")[["y", "y_base"]].mean()
        differences = seeds["y"] - seeds["y_base"]
        d = differences.to_numpy()
        low, high = mean_interval(d, confidence, BOUNDS)
        notes = []
        if len(d) == 1:
            notes.append("one seed: no interval, no test")
        if len(both) < possible:
            notes.append(f"{len(both)} of {possible} pairs have both outcomes")
        return {
            "pairs": len(d),
            "mean": float(seeds["y"].mean()),
            "baseline_mean": float(seeds["y_base"].mean()),
            "difference": float(d.mean()),
            "low": low,
            "high": high,
            "p": sign_flip(d),
            "note": "; ".join(notes),
            "differences": differences,
        }
    a, b = (side.groupby("seed")["y"].mean().to_numpy() for side in (here, there))
    missing = np.nan
    found = {
        "differences": None,
        "pairs": 0,
        "mean": a.mean() if len(a) else missing,
        "baseline_mean": b.mean() if len(b) else missing,
    }
    if not len(a) or not len(b):
        side = "at this level" if not len(a) else "at the baseline"
        lost = {"difference": missing, "low": missing, "high": missing, "p": missing}
        return {**found, **lost, "note": f"no run {side} has this outcome"}
    if table["cell"].nunique() > 1:
        note = f"{CONFOUNDED}; seeds as if independent"
    else:
        note = "no seed at both levels; seeds as if independent"
    low, high = difference_interval(a, b, confidence, BOUNDS)
    difference = float(a.mean() - b.mean())
    return {**found, "difference": difference, "low": low, "high": high, "p": two_groups(a, b), "note": note}
