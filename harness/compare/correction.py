"""Corrections for many tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import false_discovery_control

from harness.compare.permutation import joint_sign_flips

METHODS = ("holm", "fdr", "none")


def check_correction(method: str) -> None:
    """Check the name of a correction of tests by sign flips.

    Raises:
        ValueError: unknown.
    """
    if method not in ("max_t", *METHODS):
        raise ValueError(f"correction: expected one of max_t, {', '.join(METHODS)}, but got {method!r}")


def adjust_tests(p: np.ndarray, tests: Sequence[np.ndarray | None], method: str = "max_t") -> np.ndarray:
    """p-values adjusted over a table of tests by sign flips, and of others.

    Args:
        p: p-values; NaN where there was no test.
        tests: differences by seed, as for `joint_sign_flips`; None for a test without pairs of seeds.
        method: "max_t" (joint sign flips, Holm's method for tests without pairs, and Bonferroni's over the
            two kinds of tests), or one of `adjust`.
    """
    if method != "max_t":
        return adjust(p, method)
    paired = np.array([test is not None for test in tests], bool)
    adjusted = np.full(len(p), np.nan)
    adjusted[paired] = joint_sign_flips([test for test in tests if test is not None])
    adjusted[~paired] = adjust(p[~paired], "holm")
    kinds = sum(bool(np.isfinite(p[part]).any()) for part in (paired, ~paired))
    return np.minimum(adjusted * max(1, kinds), 1)


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
