"""Bootstrap intervals over seeds."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import stats

RESAMPLES = 2000
WIDEST = 2.0  # limit for bootstrapped quantiles, relative to Student's
STREAM = 20_240_607  # seed of the random numbers: the same runs give the same intervals


@lru_cache(maxsize=64)
def resamples(n: int) -> np.ndarray:
    """How often each of n seeds is drawn in each resample: (RESAMPLES, n), rows sum to n."""
    rng = np.random.default_rng((STREAM, n))
    drawn = rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(float)
    drawn.setflags(write=False)
    return drawn


def mean_interval(
    values: np.ndarray, confidence: float = 0.95, bounds: tuple[float, float] = (-np.inf, np.inf)
) -> tuple[float, float]:
    """Interval of a mean: the bootstrap-t (Efron & Tibshirani 1993, ch. 12).

    It keeps its level with few seeds, where the percentile bootstrap falls short. A resample of equal values
    has no spread for studentisation: its t is infinite. If an interval's end is infinite (always with two or
    three values), Student's quantile is used instead. With four or five values, bootstrapped quantiles can be
    enormous; they are limited to twice Student's, which hardly affects the coverage.

    Args:
        values: one per seed, NaN for none.
        confidence: confidence of the interval.
        bounds: bounds of the mean.

    Returns:
        Low and high; NaN with fewer than two values, for which no interval exists.

    Example:
        >>> low, high = mean_interval(np.array([0.1, 0.2, 0.3, 0.4, 0.2, 0.3, 0.1, 0.4]))
        >>> round(low, 2), round(high, 2)
        (0.15, 0.34)
    """
    values = values[~np.isnan(values)]
    n = len(values)
    if n < 2:
        return np.nan, np.nan
    mean = values.mean()
    centred = values - mean
    error = centred.std(ddof=1) / np.sqrt(n)
    if error <= 1e-12 * max(1.0, abs(mean)):  # all equal
        return float(mean), float(mean)
    drawn = resamples(n)
    shift = drawn @ centred / n
    spread = np.sqrt(np.maximum(drawn @ centred**2 / n - shift**2, 0) / (n - 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(spread > 1e-9 * error, shift / spread, np.copysign(np.inf, shift))
    tail = (1 - confidence) / 2
    student = stats.t.ppf(1 - tail, n - 1)
    low, high = np.quantile(t, tail, method="lower"), np.quantile(t, 1 - tail, method="higher")
    low = -student if np.isinf(low) else max(low, -WIDEST * student)
    high = student if np.isinf(high) else min(high, WIDEST * student)
    ends = np.clip([mean - high * error, mean - low * error], *bounds)
    return float(ends[0]), float(ends[1])


def difference_interval(
    a: np.ndarray, b: np.ndarray, confidence: float = 0.95, bounds: tuple[float, float] = (-np.inf, np.inf)
) -> tuple[float, float]:
    """Interval of mean(a) - mean(b) for unpaired seeds.

    Uses Welch's interval (1947), since a side may be too small for a bootstrap; NaN if a side has fewer than
    two.
    """
    a, b = a[~np.isnan(a)], b[~np.isnan(b)]
    if min(len(a), len(b)) < 2:
        return np.nan, np.nan
    difference = a.mean() - b.mean()
    each = np.array([a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)])
    if (np.ptp(a) == 0 and np.ptp(b) == 0) or not each.sum() > 0:
        return float(difference), float(difference)
    freedom = each.sum() ** 2 / float(each**2 @ (1 / np.array([len(a) - 1, len(b) - 1])))
    half = stats.t.ppf((1 + confidence) / 2, freedom) * each.sum() ** 0.5
    low, high = np.clip([difference - half, difference + half], *bounds)
    return float(low), float(high)
