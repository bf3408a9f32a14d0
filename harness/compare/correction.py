"""Corrections for many tests."""

from __future__ import annotations

import numpy as np
from scipy.stats import false_discovery_control

METHODS = ("holm", "fdr", "none")


def adjust(p: np.ndarray, method: str = "holm") -> np.ndarray:
    """p-values adjusted over a table.

    Args:
        p: p-values; NaN where there was no test: it stays NaN and does not count as a test.
        method: "holm" (Holm 1979: controls the chance of any false rejection), "fdr" (Benjamini & Hochberg
            1995: controls the share of false rejections) or "none".

    Raises:
        ValueError: unknown method.

    Example:
        >>> adjust(np.array([0.01, 0.04, np.nan, 0.03])).round(3).tolist()
        [0.03, 0.06, nan, 0.06]
    """
    if method not in METHODS:
        raise ValueError(f"correction: expected one of {', '.join(METHODS)}, but got {method!r}")
    p = np.asarray(p, float)
    adjusted, tested = p.copy(), ~np.isnan(p)
    if method == "none" or not tested.any():
        return adjusted
    values = p[tested]
    if method == "fdr":
        adjusted[tested] = false_discovery_control(values, method="bh")
        return adjusted
    order = np.argsort(values)
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    result = np.empty_like(values)
    result[order] = np.minimum(stepped, 1)
    adjusted[tested] = result
    return adjusted
