"""Baselines: by how much each value of a series deviates from the steps before it.

A baseline is the median of the last `LENGTH` values; noise is measured by their median absolute deviation.
All functions return one number per step, 0 if the deviation is within the noise.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view

LENGTH = 50  # steps in the median of a baseline
SHORTEST = 8  # fewest steps for a baseline
DEVIATIONS = 6.0  # median absolute deviations, scaled by MAD, that are more than noise
MAD = 1.4826  # standard deviation of a normal distribution over its median absolute deviation
WRITTEN = 0.02  # ‖written‖ / ‖θ‖ that is an intervention
MEAN_SHIFT = 0.25  # shift of the inputs' mean, relative to their rms
BLOCK = 1 << 14  # steps whose baselines are computed at once
#: Smallest ratio to its baseline at which a column deviates.
RATIOS = {"loss": 1.5, "grad_norm": 2.5, "lr": 1.8, "update_norm": 3.0, "input_rms": 1.25}


def ratio_deviation(values: np.ndarray, name: str) -> np.ndarray:
    """Ratio of each value to its baseline where it is exceeded; the inputs' rms may also fall below it.

    Args:
        values: one per step; NaN if nothing was observed, infinite if it was not finite.
        name: name of the column, a key of `RATIOS`.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(values)
    least = np.log(RATIOS[name])
    ratios = np.zeros(len(values))
    for rows, before in _windows(np.where(np.isfinite(logs), logs, np.nan)):
        median, noise, highest = _median(before), _noise(before), np.fmax.reduce(before, axis=1)
        usual = np.fmin(DEVIATIONS * noise, highest - median + least)  # a loss near 0 has heavy tails
        nothing = np.isneginf(logs[rows])  # inputs that are all 0 are far from any other
        above = np.where(nothing, -np.inf if name == "input_rms" else np.nan, logs[rows]) - median
        far = (np.abs(above) if name == "input_rms" else above) > np.fmax(least, usual)
        ratios[rows] = np.where(far & _long_enough(before), np.exp(np.clip(above, -700.0, 700.0)), 0.0)
    return ratios


def mean_deviation(mean: np.ndarray, rms: np.ndarray) -> np.ndarray:
    """Shift of the inputs' mean from its baseline, in units of their rms."""
    shifts = np.zeros(len(mean))
    mean, rms = (np.where(np.isfinite(values), values, np.nan) for values in (mean, rms))
    for (rows, before), (_, sizes) in zip(_windows(mean), _windows(rms), strict=True):
        scale, moved = _median(sizes), np.abs(mean[rows] - _median(before))
        far = (scale > 0) & (moved > np.fmax(DEVIATIONS * _noise(before), MEAN_SHIFT * scale))
        shifts[rows] = np.divide(moved, scale, out=np.zeros(len(moved)), where=far & _long_enough(before))
    return shifts


def written_share(written: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Share of the parameters' norm not written by the optimizer; 0 if such writes are usual."""
    sizes = (
        pd.Series(weight).replace([np.inf, -np.inf], np.nan).ffill().to_numpy()
    )  # the write may have made it non-finite
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.nan_to_num(written / sizes, nan=0.0, posinf=np.inf)
    share[np.isposinf(written)] = np.inf  # then the parameters' own norm is not finite
    shares = np.zeros(len(share))
    for rows, before in _windows(share):
        usual = np.nan_to_num(_median(before), nan=0.0, posinf=np.inf)
        shares[rows] = np.where((share[rows] > WRITTEN) & (share[rows] > 5 * usual), share[rows], 0.0)
    if np.median(share[:LENGTH]) > 0:  # the first of writes in nearly every step has no past
        shares[:SHORTEST] = 0.0
    return shares


def setting_deviation(values: np.ndarray) -> np.ndarray:
    """Ratio of a setting to its baseline where it is exceeded (infinite if it was 0)."""
    ratios, values = np.zeros(len(values)), np.nan_to_num(values)
    for rows, before in _windows(values):
        median = _median(before)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = values[rows] / median
        far = values[rows] > np.maximum(RATIOS["lr"] * median, 0.0)
        ratios[rows] = np.where(far & _long_enough(before), ratio, 0.0)
    return ratios


def known_median(values: pd.Series) -> float:
    """The median of the known values; NaN if there are none (before version 3, pandas warns then)."""
    known = values.dropna().astype(float)
    return float(known.median()) if len(known) else float("nan")


def _windows(values: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Blocks of steps, each with the `LENGTH` values before every step; NaN before the first."""
    padded = np.concatenate([np.full(LENGTH, np.nan), values[:-1]])
    windows = sliding_window_view(padded, LENGTH)
    for start in range(0, len(values), BLOCK):
        rows = slice(start, start + BLOCK)
        yield rows, windows[rows]


def _long_enough(before: np.ndarray) -> np.ndarray:
    return (~np.isnan(before)).sum(axis=1) >= SHORTEST


def _median(before: np.ndarray) -> np.ndarray:
    """Median of every row, ignoring NaN; NaN for all-NaN rows. Much faster than nanmedian."""
    ordered = np.sort(before, axis=1)  # NaN last
    n = (~np.isnan(before)).sum(axis=1)
    low, high = np.maximum(n - 1, 0) // 2, np.minimum(n // 2, LENGTH - 1)
    rows = np.arange(len(before))
    return (ordered[rows, low] + ordered[rows, high]) / 2


def _noise(before: np.ndarray) -> np.ndarray:
    """Standard deviation of every row, estimated from its median absolute deviation."""
    return MAD * _median(np.abs(before - _median(before)[:, None]))
