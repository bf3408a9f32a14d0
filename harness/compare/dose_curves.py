"""Dose–response along a numeric factor, and the critical value at which a share of the units is dead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import isotonic_regression

from harness.compare.bootstrap import mean_interval, resamples
from harness.compare.design import held, matrix, seed_codes, settings
from harness.compare.frames import cells, codes, factors_by, missing, need, setting_words, tally, values, word
from harness.compare.survivors import joined, why_no_crossing, why_not_nowhere
from harness.formats import per_cent

DECADE = 10.0  # ratio of the largest to the smallest value from which the axis is logarithmic


def dose_response(
    frame: pd.DataFrame, axis: str, by: Sequence[str] = (), outcome: str = "dead", *, confidence: float = 0.95
) -> pd.DataFrame:
    """The mean outcome at every value of a numeric factor, per setting of other factors.

    Args:
        frame: as returned by `harness.compare.outcomes`.
        axis: a numeric factor.
        by: factors; one curve per setting.
        outcome: dead, born_dead, died, revived, accuracy or diverged.
        confidence: confidence of the intervals (bootstrap-t over seeds).

    Returns:
        One row per setting and value: the columns of `by`, setting (in words), one named like the axis, mean,
        low, high (NaN with one seed), seeds, averaged (number of settings of the other factors in the mean;
        if it changes along the axis, for example because some diverge, so does what is averaged), runs,
        diverged, failed, unfinished.

    Raises:
        ValueError: unknown factor or outcome, or an axis that does not vary or is not numeric.
    """
    by = _checked(frame, axis, by)
    measured, status = values(frame, outcome), frame["status"].to_numpy(object)
    cell = cells(frame, held(frame, axis, by)[0])
    rows: list[dict[str, Any]] = []
    for setting, where in settings(frame, by):
        dose, table, index = _table(frame, axis, measured, where)
        averaged = _averaged(cell[where], index, measured[where], len(dose))
        for k, value in enumerate(dose):
            seeds = table[:, k][~np.isnan(table[:, k])]
            low, high = mean_interval(seeds, confidence, (0.0, 1.0))
            rows.append(
                {
                    **dict(zip(by, setting, strict=True)),
                    "setting": setting_words(by, setting),
                    axis: value,
                    "mean": seeds.mean() if len(seeds) else np.nan,
                    "low": low,
                    "high": high,
                    "seeds": len(seeds),
                    "averaged": int(averaged[k]),
                    **tally(status[where][index == k]),
                }
            )
    return pd.DataFrame(rows)


def critical(
    frame: pd.DataFrame,
    axis: str,
    by: Sequence[str] = (),
    share: float = 0.5,
    outcome: str = "dead",
    *,
    log: bool | None = None,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """The value of a numeric factor at which the mean outcome crosses a share, if a crossing was observed.

    The means over seeds at the values that were run are made monotone (isotonic regression, in the direction
    that fits better) and interpolated between the two neighbours of the crossing. Between them nothing is
    known: for the interval, the neighbours in a resample represent its crossing, so that it is never finer
    than the values that were run. Curves are not extrapolated.

    Args:
        frame: as returned by `harness.compare.outcomes`.
        axis: a numeric factor.
        by: factors; one critical value per setting.
        share: share of the outcome, in (0, 1).
        outcome: as in `dose_response`.
        log: scale of the interpolation; None: logarithmic if all values are above 0 and span a decade.
        confidence: confidence of the intervals (percentiles over resampled seeds).

    Returns:
        One row per setting: the columns of `by`, axis, setting, critical (NaN: not reached), below and above
        (the neighbours on the axis between which the mean crosses), low, high (±inf: not reached at that end
        in some resamples; NaN with one seed or without a crossing), rising, crossings (how often the mean
        crosses the share), values (with an outcome), lowest and highest (mean), seeds, runs, diverged,
        failed, unfinished, missing, note. `missing` says what is missing for a sentence about this critical
        value ("": nothing): it takes three values, and three seeds and half of the runs on each side of the
        crossing.

    Raises:
        ValueError: unknown factor, an axis that does not vary or is not numeric, a share outside (0, 1), or a
            logarithmic scale with values not above 0.

    Example:
        >>> frame = pd.DataFrame({"run": range(6), "status": "finished", "seed": [0, 1] * 3,
        ...     "optim.lr": [0.01, 0.01, 0.1, 0.1, 1, 1], "dead": [0, 0.1, 0.2, 0.3, 0.7, 0.8]})
        >>> found = critical(frame, "optim.lr")
        >>> found[["critical", "below", "above", "low", "high"]].round(3).values.tolist()
        [[0.316, 0.1, 1.0, 0.1, 1.0]]
    """
    if not 0 < share < 1:
        raise ValueError(f"share: expected a number in (0, 1), but got {share}")
    by = _checked(frame, axis, by)
    every = frame[axis].dropna().to_numpy(float)
    if log and every.min() <= 0:
        raise ValueError(f"log: needs values above 0, but {axis} has {every.min():g}")
    log = bool(every.min() > 0 and every.max() / every.min() >= DECADE) if log is None else log
    measured, status = values(frame, outcome), frame["status"].to_numpy(object)
    cell = cells(frame, held(frame, axis, by)[0])
    rows = []
    for setting, where in settings(frame, by):
        dose, table, index = _table(frame, axis, measured, where)
        found = _critical(dose, table, share, log, confidence)
        counts = tally(status[where])
        lost = [dose[k] for k in range(len(dose)) if np.isnan(table[:, k]).all()]
        there = status[where][np.isin(index, np.flatnonzero(np.isin(dose, lost)))]
        given = index[(status[where] == "diverged") & (index >= 0)]  # some have no value on the axis
        partly = sorted({float(dose[k]) for k in given} - set(lost))
        sides = [_side(k, dose, table, index, measured[where], status[where]) for k in range(len(dose))]
        crossed = not np.isnan(found["critical"])
        if crossed:
            near = [side for k, side in enumerate(sides) if dose[k] in (found["below"], found["above"])]
            missing = why_no_crossing(found["values"], near)
        else:
            missing = why_not_nowhere(sides)
        notes = [f"not known: {missing}" if crossed and missing else "", found.pop("note")]
        if lost:
            gone = int((there == "diverged").sum())
            notes.append(f"no outcome at {', '.join(map(word, lost))} ({gone} of {len(there)} diverged)")
        notes += [f"some runs diverged at {', '.join(map(word, partly))}"] if partly else []
        averaged = _averaged(cell[where], index, measured[where], len(dose))
        fewer = dose[(averaged < averaged.max(initial=0)) & (averaged > 0)]
        if len(fewer):
            at = ", ".join(map(word, fewer))
            notes.append(f"at {at} the mean is over fewer settings of the other factors")
        rows.append(
            {
                **dict(zip(by, setting, strict=True)),
                "axis": axis,
                "setting": setting_words(by, setting),
                **found,
                "seeds": len(table),
                **counts,
                "missing": missing,
                "note": joined(notes),
            }
        )
    return pd.DataFrame(rows)


def numeric_axis(frame: pd.DataFrame, name: str) -> bool:
    """Whether a factor is numeric wherever it is given, and has at least two values."""
    levels = [level for level in codes(frame[name])[1] if not missing(level)]
    numbers = all(isinstance(level, int | float | np.number) and level is not True for level in levels)
    return numbers and False not in [level for level in levels if isinstance(level, bool)] and len(levels) > 1


def _checked(frame: pd.DataFrame, axis: str, by: Sequence[str]) -> list[str]:
    need(frame, axis, argument="axis")
    by = factors_by(frame, by)
    if axis in by:
        raise ValueError(f"by: {axis} is the axis itself; give another factor")
    if not numeric_axis(frame, axis):
        levels = ", ".join(map(word, codes(frame[axis])[1][:6]))
        raise ValueError(f"axis: expected a factor of numbers, but {axis} has the levels {levels}")
    return by


def _table(
    frame: pd.DataFrame, axis: str, measured: np.ndarray, where: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values of the axis (V,), outcome by seed and value (S, V; NaN: none), each run's value (-1: none)."""
    at = pd.to_numeric(frame[axis], errors="coerce").to_numpy(float, na_value=np.nan)[where]
    given = ~np.isnan(at)
    dose = np.unique(at[given])
    index = np.where(given, np.searchsorted(dose, np.where(given, at, 0.0)), -1)
    seeds, seed = np.unique(seed_codes(frame)[0][where], return_inverse=True)
    known = given & ~np.isnan(measured[where])
    return (
        dose,
        matrix(seed[known], index[known], measured[where][known], (len(seeds), len(dose))),
        index,
    )


def _side(
    k: int, dose: np.ndarray, table: np.ndarray, index: np.ndarray, measured: np.ndarray, status: np.ndarray
) -> dict[str, Any]:
    """How many seeds and runs contribute to the mean at one value."""
    here = index == k
    known = ~np.isnan(measured)
    return {
        **tally(status[here & ~known]),
        "name": word(dose[k]),
        "seeds": int((~np.isnan(table[:, k])).sum()),
        "kept": int((here & known).sum()),
        "runs": int(here.sum()),
    }


def _averaged(cell: np.ndarray, index: np.ndarray, measured: np.ndarray, doses: int) -> np.ndarray:
    """Number of settings of the other factors with an outcome at each value: (V,)."""
    known = (index >= 0) & ~np.isnan(measured)
    pairs = np.unique(np.stack([index[known], cell[known]]), axis=1)
    return np.bincount(pairs[0], minlength=doses)


def _critical(
    dose: np.ndarray, table: np.ndarray, share: float, log: bool, confidence: float
) -> dict[str, Any]:
    """The crossing of one curve, from outcomes by seed and value."""
    kept = ~np.isnan(table).all(axis=0)
    dose, table = dose[kept], table[:, kept]
    found: dict[str, Any] = dict.fromkeys(("critical", "below", "above", "low", "high"), np.nan)
    found |= {"rising": None, "crossings": 0, "values": len(dose), "lowest": np.nan, "highest": np.nan}
    found["note"] = ""
    if len(dose) < 2:
        return {**found, "note": "no statement: it takes outcomes at two values"}
    table = table[~np.isnan(table).all(axis=1)]  # without seeds that have no outcome
    filled, counts = np.nan_to_num(table), (~np.isnan(table)).astype(float)
    weights = counts.sum(0)
    mean = filled.sum(0) / weights
    found["lowest"], found["highest"] = float(mean.min()), float(mean.max())
    found["crossings"] = int((np.diff(mean >= share) != 0).sum())
    rising = _rises(mean, weights)
    curve = _monotone(mean, weights, rising)
    place = _crossing(curve, share, rising)
    name = f"{100 * share:g} %"
    if place is None:
        if mean.max() < share:
            at = dose[mean.argmax()]
            note = f"not reached (highest {per_cent(mean.max())} at {word(at)})"
        elif mean.min() >= share:
            at = dose[mean.argmin()]
            note = f"always above (lowest {per_cent(mean.min())} at {word(at)})"
        else:
            note = f"no single crossing: the mean crosses {name} and comes back"
        return {**found, "note": note}
    below, above = dose[place], dose[place + 1]
    part = (share - curve[place]) / (curve[place + 1] - curve[place])
    value = below * (above / below) ** part if log else below + part * (above - below)
    found |= {"critical": float(value), "below": float(below), "above": float(above), "rising": bool(rising)}
    notes = []
    if found["crossings"] > 1:
        times = "twice" if found["crossings"] == 2 else f"{found['crossings']} times"
        notes.append(f"the mean crosses {name} {times}; that of the monotone fit is given")
    if len(table) < 2:
        notes.append("one seed: no interval")
    else:
        found["low"], found["high"], note = _interval(dose, filled, counts, share, rising, confidence)
        notes.append(note)
    return {**found, "note": joined(notes)}


def _interval(
    dose: np.ndarray, filled: np.ndarray, counts: np.ndarray, share: float, rising: bool, confidence: float
) -> tuple[float, float, str]:
    """Percentiles of the neighbours of the crossing over resampled seeds."""
    drawn = resamples(len(filled))
    total, weights = drawn @ filled, drawn @ counts
    with np.errstate(invalid="ignore", divide="ignore"):
        means = total / weights
    steps = np.diff(means, axis=1)
    # those that are already monotone; False for NaN
    smooth = np.asarray(((steps >= 0) if rising else (steps <= 0)).all(axis=1))
    lows, highs = np.empty(len(drawn)), np.empty(len(drawn))
    for k, (mean, weight) in enumerate(zip(means, weights, strict=True)):
        here = slice(None) if smooth[k] else weight > 0
        where = dose[here]
        curve = mean if smooth[k] else _monotone(mean[here], weight[here], rising)
        place = _crossing(curve, share, rising)
        if place is not None:
            lows[k], highs[k] = where[place], where[place + 1]
        else:  # beyond an end: past the largest value if the curve has not reached the share there
            lows[k] = highs[k] = np.inf if (curve[-1] < share) == rising else -np.inf
    tail = (1 - confidence) / 2
    low = float(np.quantile(lows, tail, method="lower"))
    high = float(np.quantile(highs, 1 - tail, method="higher"))
    out = int(np.isinf(lows).sum())
    return low, high, f"not reached in {per_cent(out / len(lows))} of the resamples" if out else ""


def _rises(mean: np.ndarray, weights: np.ndarray) -> bool:
    """The direction in which a monotone curve fits better."""
    misfit = [(weights * (mean - _monotone(mean, weights, up)) ** 2).sum() for up in (True, False)]
    return misfit[0] <= misfit[1]


def _monotone(mean: np.ndarray, weights: np.ndarray, rising: bool) -> np.ndarray:
    return isotonic_regression(mean, weights=weights, increasing=rising).x


def _crossing(curve: np.ndarray, share: float, rising: bool) -> int | None:
    """Index of the last value before a monotone curve crosses the share."""
    over = curve >= share if rising else curve < share
    return int(over.argmax()) - 1 if over.any() and not over[0] else None
