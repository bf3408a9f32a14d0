"""Baselines: by how much each value of a series deviates from the steps before it.

A baseline is the median of the last `LENGTH` values; noise is judged by their median absolute deviation. All
functions return one number per step, 0 where the deviation is no more than noise.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view

LENGTH = 50  # steps whose median is a baseline
SHORTEST = 8  # steps without which there is no baseline
DEVIATIONS = 6.0  # median absolute deviations (as of a normal law) that are more than noise
MAD = 1.4826  # deviations of a normal law in its median absolute deviation
WRITTEN = 0.02  # ‖written‖ / ‖θ‖ that is an intervention
MEAN_SHIFT = 0.25  # of the inputs' rms by which their mean has moved
BLOCK = 1 << 14  # steps whose baselines are laid out at a time
#: Least ratio to its baseline by which a column deviates.
RATIOS = {"loss": 1.5, "grad_norm": 2.5, "lr": 1.8, "update_norm": 3.0, "input_rms": 1.25}


def ratio_deviation(values: np.ndarray, name: str) -> np.ndarray:
    """By what ratio each value exceeds its baseline; the inputs' rms may fall below it as well.

    Args:
        values: one per step; NaN where nothing was observed, infinite where it was not finite.
        name: of the column, a key of `RATIOS`.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(values)
    least = np.log(RATIOS[name])
    ratios = np.zeros(len(values))
    for rows, before in _windows(np.where(np.isfinite(logs), logs, np.nan)):
        median, noise, highest = _median(before), _noise(before), np.fmax.reduce(before, axis=1)
        usual = np.fmin(DEVIATIONS * noise, highest - median + least)  # a loss near 0 has heavy tails
        above = np.where(np.isneginf(logs[rows]), np.nan, logs[rows]) - median
        far = (np.abs(above) if name == "input_rms" else above) > np.fmax(least, usual)
        ratios[rows] = np.where(far & _long_enough(before), np.exp(np.minimum(above, 700.0)), 0.0)
    return ratios


def mean_deviation(mean: np.ndarray, rms: np.ndarray) -> np.ndarray:
    """By how many of the inputs' rms their mean has moved from its baseline."""
    shifts = np.zeros(len(mean))
    mean, rms = (np.where(np.isfinite(values), values, np.nan) for values in (mean, rms))
    for (rows, before), (_, sizes) in zip(_windows(mean), _windows(rms), strict=True):
        scale, moved = _median(sizes), np.abs(mean[rows] - _median(before))
        far = (scale > 0) & (moved > np.fmax(DEVIATIONS * _noise(before), MEAN_SHIFT * scale))
        shifts[rows] = np.divide(moved, scale, out=np.zeros(len(moved)), where=far & _long_enough(before))
    return shifts


def written_share(written: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Share of the parameters' norm that others than the optimizer wrote; 0 where they always do as much."""
    sizes = (
        pd.Series(weight).replace([np.inf, -np.inf], np.nan).ffill().to_numpy()
    )  # what was written may end it
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.nan_to_num(written / sizes, nan=0.0, posinf=np.inf)
    share[np.isposinf(written)] = np.inf  # the parameters' own norm is not finite then
    shares = np.zeros(len(share))
    for rows, before in _windows(share):
        usual = np.nan_to_num(_median(before), nan=0.0, posinf=np.inf)
        shares[rows] = np.where((share[rows] > WRITTEN) & (share[rows] > 5 * usual), share[rows], 0.0)
    return shares


def setting_deviation(values: np.ndarray) -> np.ndarray:
    """By what ratio a setting exceeds its baseline (infinite: it was 0)."""
    ratios, values = np.zeros(len(values)), np.nan_to_num(values)
    for rows, before in _windows(values):
        median = _median(before)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = values[rows] / median
        far = values[rows] > RATIOS["lr"] * median
        ratios[rows] = np.where(far & _long_enough(before), ratio, 0.0)
    return ratios


def _windows(values: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Block by block, which steps, and the `LENGTH` values before each; NaN before the first."""
    padded = np.concatenate([np.full(LENGTH, np.nan), values[:-1]])
    windows = sliding_window_view(padded, LENGTH)
    for start in range(0, len(values), BLOCK):
        rows = slice(start, start + BLOCK)
        yield rows, windows[rows]


def _long_enough(before: np.ndarray) -> np.ndarray:
    return (~np.isnan(before)).sum(axis=1) >= SHORTEST


def _median(before: np.ndarray) -> np.ndarray:
    """Of every row without its NaN; NaN for a row of nothing else. It is far faster than nanmedian."""
    ordered = np.sort(before, axis=1)  # NaN last
    n = (~np.isnan(before)).sum(axis=1)
    low, high = np.maximum(n - 1, 0) // 2, np.minimum(n // 2, LENGTH - 1)
    rows = np.arange(len(before))
    return (ordered[rows, low] + ordered[rows, high]) / 2


def _noise(before: np.ndarray) -> np.ndarray:
    """Deviation of every row, by its median absolute deviation."""
    return MAD * _median(np.abs(before - _median(before)[:, None]))
