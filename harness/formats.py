"""Format numbers consistently in all tables, figures and sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def per_cent(share: float | None, decimals: int = 1, *, missing: str = "no value") -> str:
    """Format a share as a percentage; a missing value is not 0 %.

    Example:
        >>> per_cent(0.125), per_cent(float("nan")), per_cent(None, missing="-")
        ('12.5 %', 'no value', '-')
    """
    return missing if share is None or share != share else f"{100 * share:.{decimals}f} %"


def dead_share_text(row: Mapping[Any, Any], *, unit: str = " %") -> str:
    """Format the share of a site's observed units that are dead, or say why there is none.

    Args:
        row: counts of units: units, dead and, if known, unobserved and non_finite.
        unit: what follows the number.

    Example:
        >>> dead_share_text({"units": 8, "dead": 1}), dead_share_text({"units": 8, "non_finite": 8})
        ('12.5 %', 'not finite')
    """
    observed = row["units"] - row.get("unobserved", 0)
    if observed <= 0:
        return "unobserved"
    if observed <= row.get("non_finite", 0):
        return "not finite"
    return f"{100 * row['dead'] / observed:.1f}{unit}"


def points(difference: float) -> str:
    """Format a difference of shares in percentage points.

    Example:
        >>> points(0.1234), points(float("nan")), points(float("inf"))
        ('+12.3', '-', '∞')
    """
    if difference != difference:
        return "-"
    return "∞" if math.isinf(difference) else f"{100 * difference:+.1f}"


def span(numbers: Any) -> str:
    """Format the smallest to the largest of an array of integers.

    Example:
        >>> import numpy as np
        >>> span(np.array([2000, 360]))
        '360 to 2,000'
    """
    low, high = int(numbers.min()), int(numbers.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def place_words(name: str) -> str:
    """Write the name of a site or a layer into a sentence, where a number alone would read as a count.

    Example:
        >>> place_words("3"), place_words("encoder.3")
        ('“3”', 'encoder.3')
    """
    return f"“{name}”" if name.replace(".", "").isdigit() else name


def p_value(p: float, *, missing: str = "–") -> str:
    """Format a p-value.

    Example:
        >>> p_value(0.125), p_value(0.0078125), p_value(1e-5), p_value(float("nan"))
        ('0.125', '0.0078', '< 0.001', '–')
    """
    if p != p:
        return missing
    return f"{p:.{3 if p >= 0.1 else 2}g}" if p >= 0.001 else "< 0.001"


def p_is(p: float) -> str:
    """Write a p-value into a sentence.

    Example:
        >>> p_is(0.0078125), p_is(1e-5)
        ('p = 0.0078', 'p < 0.001')
    """
    return f"p {'= ' if p >= 0.001 else ''}{p_value(p)}"
